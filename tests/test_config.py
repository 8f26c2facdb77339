"""`killswitch.toml`: what is common must be right, what is one system's costs that system."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.config import Config, System, find_config, load_config
from killswitch.errors import ConfigError
from killswitch.sections import (
    SYSTEMS,
    BybitSection,
    HaltSection,
    KubernetesSection,
    SandboxSection,
)
from killswitch.toml_lines import Place, line_of

WHOLE = """\
name = "desk-fra"

[keys]
rp_id = "killswitch.internal"

[halt]
deadline_s = 45
stay_down_s = 0

[[kubernetes]]
name = "k3s-fra"
kubeconfig = "kube.yaml"
context = "halt"
namespaces = ["trading"]

[[bybit]]
name = "main-desk"
api_key = "env:BYBIT_KEY"
api_secret = "env:BYBIT_SECRET"

[[bybit.held]]
sub = "1234"
api_key = "env:HELD_KEY"
api_secret = "env:HELD_SECRET"

[[kakunin]]
name = "prod"
api_key = "env:KAKUNIN"
agents = ["ag_1"]

[[vault]]
name = "prod"
address = "https://vault.internal:8200"
token = "env:VAULT_TOKEN"
paths = ["secret/trading"]

[[telegram]]
name = "ops"
token = "env:BOT"
chat_id = "-100"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "killswitch.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str) -> Config:
    return load_config(written(folder, text))


def refusal(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 4
    assert caught.value.effect == "nothing was revoked; trading is still live"
    assert caught.value.hint
    assert "\n" not in caught.value.problem
    return caught.value


def only(config: Config, kind: str) -> System:
    (system,) = [system for system in config.systems if system.kind == kind]
    return system


# What is right.


def test_the_whole_file_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    assert config.name == "desk-fra"
    assert config.halt == HaltSection(deadline_s=45.0, stay_down_s=0.0)
    assert config.path == tmp_path / "killswitch.toml"
    assert len(config.sha256) == 64
    assert [(system.kind, system.name, system.problem) for system in config.systems] == [
        ("kubernetes", "k3s-fra", ""),
        ("bybit", "main-desk", ""),
        ("kakunin", "prod", ""),
        ("vault", "prod", ""),
        ("telegram", "ops", ""),
    ]
    for system in config.systems:
        assert isinstance(system.section, SYSTEMS[system.kind])
    bybit = only(config, "bybit").section
    assert isinstance(bybit, BybitSection)
    assert [held.sub for held in bybit.held] == ["1234"]


def test_an_empty_file_is_a_configuration_of_nothing(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert (config.name, config.systems, config.sandbox) == ("unnamed", (), None)
    assert config.halt == HaltSection()


def test_bybit_answers_at_the_environment_unless_an_endpoint_is_named() -> None:
    section = BybitSection(name="x", api_key="env:K", api_secret="env:S")
    assert section.url == "https://api.bybit.com"
    assert replace(section, environment="testnet").url == "https://api-testnet.bybit.com"
    assert replace(section, endpoint="https://b.example").url == "https://b.example"


def test_paths_stand_beside_the_file_unless_they_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = """
    [keys]
    file = "ring/keys.json"
    [journal]
    file = "/var/lib/killswitch/journal.db"
    fallback = "~/fallback.jsonl"
    [sandbox]
    software_key = "soft.key"
    """
    config = load(tmp_path, text)
    assert config.key_file == tmp_path / "ring" / "keys.json"
    assert config.journal_file == Path("/var/lib/killswitch/journal.db")
    assert config.fallback_file == tmp_path / "home" / "fallback.jsonl"
    assert config.resolve("a/b") == tmp_path / "a" / "b"
    assert config.sandbox == SandboxSection(software_key="soft.key")


def test_a_relative_path_to_the_file_makes_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("killswitch.toml"))
    assert config.path == tmp_path / "killswitch.toml"
    assert config.key_file == tmp_path / "keys.json"


def test_journal_and_fallback_live_in_two_folders_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    config = load(tmp_path, "")
    assert config.journal_file == tmp_path / "state" / "killswitch" / "journal.db"
    assert config.fallback_file == tmp_path / "data" / "killswitch" / "journal-fallback.jsonl"


# Which file.


def test_the_argument_comes_first_then_the_environment_then_here_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    (home / "killswitch").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    named = {"KILLSWITCH_CONFIG": "/named.toml"}
    assert find_config(None, {}) is None
    mine = written(home / "killswitch", "")
    assert find_config(None, {}) == mine
    written(here, "")
    assert find_config(None, {"KILLSWITCH_CONFIG": ""}) == here / "killswitch.toml"
    assert find_config(None, named) == Path("/named.toml")
    assert find_config(Path("arg.toml"), named) == Path("arg.toml")


# A file that cannot be used.


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory") as caught:
        load_config(tmp_path / "killswitch.toml")
    assert "killswitch init" in caught.value.hint


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "killswitch.toml"
    path.write_bytes(b'name = "\xff\xfe"')
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        "[halt",
        "a = 1\na = 2",
        "deep = " + "[" * 20_000,
        "long = " + "9" * 5_000,
    ],
    ids=["no value", "no end", "twice", "too deep", "too long"],
)
def test_what_is_no_toml_is_told_and_not_a_crash(tmp_path: Path, text: str) -> None:
    assert "killswitch.toml: not TOML: " in refusal(tmp_path, text).problem


# Unknown keys.


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "desk-fra"', "nam = 1", 'line 1: unknown key "nam", did you mean "name"?'),
        ("[halt]", "[hallt]", 'line 6: unknown key "hallt", did you mean "halt"?'),
        ("deadline_s = 45", "deadlin_s = 1", 'line 7: unknown key "deadlin_s", did you mean "dead'),
        ("deadline_s = 45", '"deadlin_s"= 1', 'line 7: unknown key "deadlin_s", did you mean "de'),
        ("[keys]", "drill.every_day = 1\n[keys]", 'line 3: unknown key "every_day", did you mean'),
        ("api_secret", "api_secet", 'line 19: unknown key "api_secet", did you mean "api_secret"?'),
        ('sub = "1234"', "subb = 1", 'line 22: unknown key "subb", did you mean "sub"?'),
        ("[[telegram]]", "[[signal]]", 'line 37: unknown key "signal", known here: name, keys,'),
        ('chat_id = "-100"', "zzz = 1", 'line 40: unknown key "zzz", known here: name, token, c'),
    ],
)
def test_an_unknown_key_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert told in refusal(tmp_path, WHOLE.replace(old, new, 1)).problem


def test_an_unknown_key_in_the_second_of_two_is_found_there(tmp_path: Path) -> None:
    held = '[[bybit.held]]\nsub = "2"\napi_key = "env:A"\napi_secret = "env:B"\n'
    one = '[[bybit]]\nname = "{}"\napi_key = "env:A"\napi_secret = "env:B"\n'
    text = one.format("a") + held + one.format("b") + held + held.replace("sub", "subb")
    assert 'line 18: unknown key "subb"' in refusal(tmp_path, text).problem


def test_an_unknown_key_in_an_inline_table_is_found(tmp_path: Path) -> None:
    text = 'name = "x"\nhalt = { deadlin_s = 3 }\n'
    assert 'line 2: unknown key "deadlin_s"' in refusal(tmp_path, text).problem


# Faults in what is common.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[halt]\ndeadline_s = "soon"', "line 2: expected `float`, got `str` - at `halt.dead"),
        ("[halt]\ndeadline_s = 0", "line 2: expected `float` > 0.0 - at `halt.deadline_s`"),
        ("[halt]\ndeadline_s = nan", "line 2: expected `float` > 0.0"),
        ("[halt]\n\ndeadline_s = inf", "line 3: expected `float` <= 3600.0"),
        ("[halt]\nstay_down_s = -1", "line 2: expected `float` >= 0.0"),
        ("[drill]\nevery_days = 0", "line 2: expected `int` >= 1"),
        ("name = 7", "line 1: expected `str`, got `int` - at `name`"),
        ("\nhalt = 7", "line 2: expected `object`, got `int` - at `halt`"),
        ("\n[sandbox]", "line 2: missing the required field `software_key` - at `sandbox`"),
        ("[keys]\nfile = 1979-05-27", "line 2: expected `str`, got `date` - at `keys.file`"),
        ('[keys]\nfile = "~nobody-of-this-name/k"', "there is no such user"),
    ],
)
def test_a_fault_in_a_common_section_stops_everything(
    tmp_path: Path, text: str, words: str
) -> None:
    assert words in refusal(tmp_path, text).problem


@pytest.mark.parametrize("kind", SYSTEMS)
@pytest.mark.parametrize(
    "form", ["[{0}]", "[{0}]\nname = 'x'", "{0} = [1]", "{0} = 'x'", "{0} = [{{}}, 'x']"]
)
def test_systems_that_are_no_list_of_tables_are_refused(
    tmp_path: Path, kind: str, form: str
) -> None:
    problem = refusal(tmp_path, "\n" + form.format(kind)).problem
    assert f"line 2: [{kind}] must be [[{kind}]], one for each system" in problem


def test_two_of_one_kind_with_one_name_are_refused(tmp_path: Path) -> None:
    twin = '[[telegram]]\nname = "ops"\ntoken = "env:T"\nchat_id = "1"\n'
    error = refusal(tmp_path, twin * 2)
    assert 'two [[telegram]] sections are named "ops"' in error.problem
    assert "each its own name" in error.hint


def test_a_broken_twin_is_refused_as_well(tmp_path: Path) -> None:
    text = '[[telegram]]\nname = "ops"\n[[telegram]]\nname = "ops"\n'
    assert "two [[telegram]] sections" in refusal(tmp_path, text).problem


def test_two_kinds_may_share_a_name(tmp_path: Path) -> None:
    assert len(load(tmp_path, WHOLE.replace('"main-desk"', '"prod"')).systems) == 5


# A fault in one system.


@pytest.mark.parametrize(
    ("kind", "old", "new", "problem"),
    [
        ("kubernetes", 'namespaces = ["trading"]', 'namespaces = "trading"', "expected `array`"),
        ("kubernetes", 'context = "halt"\n', "", "missing the required field `context`"),
        ("bybit", '"env:BYBIT_KEY"', "7", "expected `str`, got `int` - at `api_key`"),
        ("bybit", 'sub = "1234"', "sub = 1234", "expected `str`, got `int` - at `held[0].sub`"),
        ("bybit", "[[bybit.held]]", "[bybit.held]", "expected `array`, got `object` - at `held`"),
        ("bybit", 'name = "main-desk"', "name = 5", "expected `str`, got `int` - at `name`"),
        ("kakunin", 'agents = ["ag_1"]', "agents = [1]", "expected `str`, got `int`"),
        ("vault", 'paths = ["secret/trading"]', "paths = {}", "expected `array`"),
        ("telegram", 'chat_id = "-100"', "chat_id = -100", "expected `str`, got `int`"),
    ],
)
def test_a_fault_in_one_system_costs_that_system_alone(
    tmp_path: Path, kind: str, old: str, new: str, problem: str
) -> None:
    text = WHOLE.replace(old, new, 1)
    config = load(tmp_path, text)
    broken = only(config, kind)
    assert broken.section is None
    line = text.splitlines().index(f"[[{kind}]]") + 1
    assert broken.problem.startswith(f"line {line}: {problem}")
    others = [system for system in config.systems if system is not broken]
    assert len(others) == 4
    assert all(system.section is not None and not system.problem for system in others)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("namespaces = []", "`namespaces` names none"),
        ('namespaces = ["Trading"]', "`namespaces` has a name that Kubernetes does not take"),
        ('namespaces = ["trading\\n"]', "`namespaces` has a name that Kubernetes does not take"),
        ('selector = {app = "a b"}', "`selector` has a label that Kubernetes does not take"),
        ('selector = {app = ""}', "`selector` has a label that Kubernetes does not take"),
        ('selector = {"a,b" = "c"}', "`selector` has a label that Kubernetes does not take"),
        ('pause = ["jenkins"]', "invalid enum value"),
    ],
)
def test_what_kubernetes_does_not_take_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    key = line.partition(" ")[0]
    old = 'namespaces = ["trading"]'
    text = WHOLE.replace(old, line if key == "namespaces" else f"{old}\n{line}")
    assert problem in only(load(tmp_path, text), "kubernetes").problem


def test_a_quota_is_for_whole_namespaces_unless_it_is_asked_for() -> None:
    section = KubernetesSection(name="x", kubeconfig="k", context="c", namespaces=("trading",))
    chosen = replace(section, selector={"app.kubernetes.io/name": "freqtrade"})
    assert (section.latched, chosen.latched) == (True, False)
    assert replace(chosen, latch=True).latched
    assert not replace(section, latch=False).latched


def test_a_system_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    config = load(tmp_path, '[[vault]]\ntoken = "env:T"\n[[vault]]\ntoken = "env:T"\n')
    assert [system.name for system in config.systems] == ["number 1", "number 2"]


def test_a_value_in_the_file_is_never_echoed(tmp_path: Path) -> None:
    text = WHOLE.replace('"env:VAULT_TOKEN"', '["hvs.pasted-in-clear"]')
    assert "pasted" not in only(load(tmp_path, text), "vault").problem


# Whatever stands in the file.


def survives(folder: Path, raw: bytes) -> None:
    path = folder / "killswitch.toml"
    path.write_bytes(raw)
    try:
        config = load_config(path)
    except ConfigError as error:
        assert error.problem.startswith(str(path))  # noqa: PT017 (a refusal is as good as a config)
    else:
        assert all((system.section is None) == bool(system.problem) for system in config.systems)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_configuration_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    survives(tmp_path_factory.getbasetemp(), raw)


@given(st.text(max_size=200))
def test_arbitrary_text_is_a_configuration_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    survives(tmp_path_factory.getbasetemp(), text.encode(errors="replace"))


KEYS = st.sampled_from(
    [*SYSTEMS, "name", "halt", "keys", "held", "deadline_s", "file", "api_key", "x", '"a b"']
)
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(["true", "nan", "-inf", "1979-05-27", "07:32:00", '"x"', "'~x/y'", '""']),
        st.integers().map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(str),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.lists(KEYS, min_size=1, max_size=2).map(lambda names: f"[{'.'.join(names)}]"),
    st.lists(KEYS, min_size=1, max_size=2).map(lambda names: f"[[{'.'.join(names)}]]"),
)


@given(st.lists(LINES, max_size=8))
def test_a_file_of_likely_lines_is_a_configuration_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    survives(tmp_path_factory.getbasetemp(), "\n".join(lines).encode())


# Lines.


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (("name",), 1),
        (("nothing",), 1),
        (("halt",), 6),
        (("halt", "nothing"), 6),
        (("kubernetes", 0, "namespaces"), 14),
        (("bybit", 0, "held", 0, "api_key"), 23),
        (("bybit", 0, "held", 7), 16),
        (("telegram", 0), 37),
    ],
)
def test_a_key_or_table_is_found_in_its_line(where: Place, line: int) -> None:
    assert line_of(WHOLE, where) == line


def test_numbers_within_a_table_begin_anew_in_the_next_one() -> None:
    text = "[[a]]\n[[a.b]]\n[[a.b]]\n[[c]]\n[[a]]\n[[a.b]]\nx = 1\n[[c]]\n[a.d]\ny = 1\n"
    tomllib.loads(text)
    assert line_of(text, ("a", 0, "b", 1)) == 3
    assert line_of(text, ("a", 1, "b", 0, "x")) == 7
    assert line_of(text, ("c", 1)) == 8
    assert line_of(text, ("a", 1, "d", "y")) == 10


def test_comments_spaces_and_quotes_do_not_hide_a_line() -> None:
    text = "# name = 1\n [ \"halt\" ]  # bounds\n  'deadline_s'= 3\n  a . b = 1\n"
    assert line_of(text, ("halt",)) == 2
    assert line_of(text, ("halt", "deadline_s")) == 3
    assert line_of(text, ("halt", "a", "b")) == 4


SYNCED = """\
[[synced_secrets]]
name = "k3s-fra"
kubeconfig = "kube.yaml"
context = "halt"
namespaces = ["trading"]
secrets = ["trading/freqtrade-bybit"]
"""


def test_a_kind_is_its_table_with_dashes(tmp_path: Path) -> None:
    system = only(load(tmp_path, SYNCED), "synced-secrets")
    assert (system.name, system.problem) == ("k3s-fra", "")
    assert isinstance(system.section, SYSTEMS["synced_secrets"])
    with pytest.raises(ConfigError, match=r"two \[\[synced_secrets\]\] sections are named"):
        load(tmp_path, SYNCED + SYNCED)
    with pytest.raises(ConfigError, match=r"\[synced_secrets\] must be \[\[synced_secrets\]\]"):
        load(tmp_path, SYNCED.replace("[[synced_secrets]]", "[synced_secrets]"))
