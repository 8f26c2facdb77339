"""Where a credential may be sent: behind https, or to this very machine."""

import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.address import checked_url, host_of, is_loopback
from killswitch.config import Config, load_config
from killswitch.errors import ConfigError
from killswitch.loopback import demand_loopback

VAULT = """
[sandbox]
software_key = "software-key.json"
[[vault]]
name = "prod"
address = "{}"
token = "env:TOKEN"
paths = ["trading/"]
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "api.example",
        "localhost.example",
        "127.0.0.1.example",
        "127.1",
        "0.0.0.0",  # noqa: S104 (an address to be refused, nothing listens there)
        "10.0.0.1",
        "::",
        "[::1]",
    ],
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.example", "https://api.example"),
        ("https://api.example:6443/k8s/clusters/c-1/", "https://api.example:6443/k8s/clusters/c-1"),
        ("HTTPS://API.example", "HTTPS://API.example"),
        ("http://127.0.0.1:8200/", "http://127.0.0.1:8200"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://api.telegram.org/bot", "https://api.telegram.org/bot"),
    ],
)
def test_a_safe_address_is_kept_but_for_its_last_slash(url: str, kept: str) -> None:
    assert checked_url(url) == kept


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://api.example/v1", "api.example"),
        ("http://127.0.0.1.example", "127.0.0.1.example"),
        ("ftp://127.0.0.1", "127.0.0.1"),
        ("//api.example", "api.example"),
        ("https://", "no host"),
        ("api.example", "no host"),
        ("api.example:6443", "no host"),
        ("", "no host"),
    ],
)
def test_https_is_required_except_for_loopback(url: str, host: str) -> None:
    with pytest.raises(ValueError) as caught:
        checked_url(url)
    assert str(caught.value) == f"https is required except for loopback: {host}"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:password@api.example",
        "https://@api.example",
        "https://api.example/v1?token=password",
        "https://api.example/?",
        "https://api.example/#password",
        "http://127.0.0.1\\@api.example",
    ],
)
def test_an_address_is_host_and_path_only_and_the_rest_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        checked_url(url)
    assert "password" not in str(caught.value)
    assert str(caught.value).endswith(": api.example")


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1",
        "https://me:password@[::1",
        "https://me:password@api\u2100.example",  # the parser itself quotes this one in full
        "https://[api.example]",
        "https://api.example:port",
        "https://api.example:99999",
        "https://api.example:0",
        "https://api.example\n/v1",
        "https://api .example",
    ],
)
def test_what_cannot_be_read_is_refused_in_words_of_our_own(url: str) -> None:
    for read in (checked_url, host_of):
        with pytest.raises(ValueError) as caught:
            read(url)
        assert str(caught.value) == "this cannot be read as an address like https://host:443"
        assert "password" not in "".join(
            line for line in traceback.format_exception(caught.value) if "raise" not in line
        )


@given(st.text(alphabet="htps:/[]@?#\\.:1a% \n0", max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}", f"http://{text}"):
        try:
            kept = checked_url(url)
        except ValueError:
            continue
        assert kept.lower().startswith("https:") or is_loopback(host_of(kept))


def configured(tmp_path: Path, address: str) -> Config:
    path = tmp_path / "killswitch.toml"
    path.write_text(VAULT.format(address))
    path.chmod(0o600)
    return load_config(path)


def test_a_sandbox_stays_on_this_machine(tmp_path: Path) -> None:
    demand_loopback(configured(tmp_path, "http://127.0.0.1:8200"))
    for address, told in (("https://vault.internal", "vault.internal"), ("vault", "no host")):
        with pytest.raises(ConfigError, match=f"and vault prod is at {told}"):
            demand_loopback(configured(tmp_path, address))


def test_a_sandbox_address_that_cannot_be_read_is_a_fault_of_the_configuration(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="the address of vault prod: this cannot be read"):
        demand_loopback(configured(tmp_path, "https://[::1"))
