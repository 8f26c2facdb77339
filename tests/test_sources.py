"""Secrets from their sources: read once, in the background, bounded, never echoed."""

import os
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from killswitch.config import load_config
from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.secret import Secret
from killswitch.sources import Sources, check_source, name_of, sealed_names


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path.joinpath, {"BYBIT_KEY": "  env-secret-71 \n", "EMPTY": " "})


def command(code: str) -> str:
    return f"command:{sys.executable} -c '{code}'"


def told(error: BaseException) -> str:
    return str(error) + repr(error) + "".join(traceback.format_exception(error))


def test_a_secret_comes_from_the_environment(sources: Sources) -> None:
    assert sources.get("env:BYBIT_KEY") == Secret("env-secret-71")


def test_a_secret_comes_from_a_file_beside_the_configuration(
    sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("file-secret-72\n", encoding="utf-8")
    assert sources.get("file:token") == Secret("file-secret-72")


def test_a_secret_comes_from_a_command(sources: Sources) -> None:
    assert sources.get(command('print("command-secret-73")')) == Secret("command-secret-73")


@pytest.mark.parametrize("source", ["env:EMPTY", "env:NOT_SET", "file:empty", "command:true"])
def test_an_empty_secret_is_refused(sources: Sources, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(RefusedError, match=f"secret {source}: empty or not set"):
        sources.get(source)


@pytest.mark.parametrize("clear", ["hvs.in-clear-74", "bot:in-clear-74", "in-clear-74", ""])
def test_a_secret_in_the_configuration_itself_is_refused_and_not_echoed(
    sources: Sources, clear: str
) -> None:
    with pytest.raises(RefusedError, match="stands in the configuration itself") as caught:
        sources.get(clear)
    assert "in-clear-74" not in told(caught.value)
    assert "env:NAME" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe secret-75")
    for where, why in (
        ("missing", "No such file or directory"),
        ("folder", "Is a directory"),
        ("bytes", "not text, or not a path"),
        ("a\0b", "not text, or not a path"),
    ):
        with pytest.raises(RefusedError, match=f"secret file:{where}: {why}") as caught:
            sources.get(f"file:{where}")
        assert "secret-75" not in told(caught.value)


def test_the_home_of_nobody_is_no_path(tmp_path: Path) -> None:
    config = tmp_path / "killswitch.toml"
    config.touch()
    with pytest.raises(RefusedError, match=r"not a path: .*there is no such user"):
        Sources(load_config(config).resolve).get("file:~nobody-of-this-name/token")


@pytest.mark.parametrize("source", ["file:long", "command:cat {}/long"])
def test_what_is_too_long_is_refused_and_not_cut_off(
    sources: Sources, tmp_path: Path, source: str
) -> None:
    (tmp_path / "long").write_text("x" * 70_000, encoding="utf-8")
    with pytest.raises(RefusedError, match="longer than 65536 characters") as caught:
        sources.get(source.format(tmp_path))
    assert "xxx" not in told(caught.value)


def test_an_endless_file_is_read_only_as_far_as_a_secret_may_go(sources: Sources) -> None:
    with pytest.raises(RefusedError, match="longer than"):
        sources.get("file:/dev/zero")


def test_what_a_failing_command_printed_is_never_told(sources: Sources) -> None:
    code = 'import sys; print("half-a-secret-76"); print("half-a-secret-76", file=sys.stderr); '
    with pytest.raises(RefusedError, match=r": exit code 3$") as caught:
        sources.get(command(code + "sys.exit(3)"))
    assert "half-a-secret-76" not in told(caught.value)


def test_an_argument_of_a_command_is_never_told(sources: Sources) -> None:
    argument = f"argument-{70 + 7}"  # not as such in this file, which a traceback shows
    with pytest.raises(
        RefusedError, match="secret command:no-such-program: No such file"
    ) as caught:
        sources.get(f"command:no-such-program --password {argument}")
    assert argument not in told(caught.value)


@pytest.mark.parametrize("line", ["", "   ", 'cat "unclosed', "cat a\0b"])
def test_what_is_no_command_line_is_refused(sources: Sources, line: str) -> None:
    with pytest.raises(RefusedError, match="not a command line"):
        sources.get(f"command:{line}")


def test_a_command_that_prints_bytes_is_refused(sources: Sources) -> None:
    code = 'import sys; sys.stdout.buffer.write(bytes([255, 254]) + b"bytes-78")'
    with pytest.raises(RefusedError, match="its output is not text") as caught:
        sources.get(command(code))
    assert "bytes-78" not in told(caught.value)


def test_a_command_that_hangs_costs_its_timeout_and_no_more(tmp_path: Path) -> None:
    sources = Sources(tmp_path.joinpath, {}, command_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"secret command:sleep: no answer within 0\.2 s"):
        sources.get("command:sleep 30")
    assert time.monotonic() - began < 2


def test_a_command_reads_nothing_from_the_terminal(sources: Sources) -> None:
    code = 'import sys; print("nothing-typed-79" + sys.stdin.read())'
    assert sources.get(command(code)) == Secret("nothing-typed-79")


def test_a_file_that_never_answers_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    sources = Sources(tmp_path.joinpath, {}, command_timeout_s=-0.8)
    with pytest.raises(UnreachableError, match="secret file:pipe: not read in time"):
        sources.get("file:pipe")
    (tmp_path / "pipe").write_text("late-secret-85", encoding="utf-8")  # lets the thread end


def test_a_second_start_reads_nothing_again(sources: Sources, tmp_path: Path) -> None:
    once = "import pathlib, sys; path = pathlib.Path(sys.argv[1]); path.open('a').write('x')"
    script = tmp_path / "once.py"
    script.write_text(f"{once}\nprint('read-once-80')\n", encoding="utf-8")
    source = f"command:{sys.executable} {script} {tmp_path / 'count'}"
    sources.start([source, source])
    sources.start([source])
    sources.settle(10)
    assert sources.get(source) == sources.get(source) == Secret("read-once-80")
    assert (tmp_path / "count").read_text(encoding="utf-8") == "x"


def test_many_threads_that_want_a_secret_at_once_read_it_once() -> None:
    class Counting(dict[str, str]):
        reads = 0

        def get(self, *_: object) -> str:
            self.reads += 1
            return "wanted-by-many-81"

    environment = Counting()
    sources = Sources(Path, environment)
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        sources.get("env:WANTED")

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert environment.reads == 1


def test_settling_waits_for_all_but_not_longer_than_told(tmp_path: Path) -> None:
    sources = Sources(tmp_path.joinpath, {"QUICK": "quick-82"}, command_timeout_s=1)
    sources.start(["env:QUICK", "command:sleep 30"])
    began = time.monotonic()
    sources.settle(0.1)
    assert time.monotonic() - began < 0.9
    assert sources.get("env:QUICK") == Secret("quick-82")
    sources.settle(5)


def test_a_fault_that_nobody_foresaw_costs_that_secret_alone() -> None:
    def resolve(path: str) -> Path:
        raise LookupError(f"{path} text-that-nobody-vetted-83")

    sources = Sources(resolve, {"FINE": "fine-84"})
    with pytest.raises(VendorError, match="secret file:x: unexpected LookupError") as caught:
        sources.get("file:x")
    assert "nobody-vetted" not in told(caught.value)
    assert sources.get("env:FINE") == Secret("fine-84")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("env:TOKEN", "env:TOKEN"),
        ("file:~/token", "file:~/token"),
        ("command:pass show bybit", "command:pass"),
        ("command:", "command:"),
        ("hvs.in-clear", "in clear"),
        ("123456:in-clear", "in clear"),
    ],
)
def test_of_a_source_its_place_is_shown_and_nothing_else(source: str, shown: str) -> None:
    assert name_of(source) == shown


def test_a_source_can_be_checked_without_being_read() -> None:
    for good in ("env:NOT_SET", "file:missing", "command:false"):
        check_source(good)
    for clear in ("hvs.in-clear-86", "123456:in-clear-86", ""):
        with pytest.raises(ValueError, match="stands in the configuration itself") as caught:
            check_source(clear)
        assert "in-clear-86" not in str(caught.value)


def test_a_sealed_secret_opens_only_with_a_touch(sources: Sources) -> None:
    sources.start(["sealed:bybit-main"])
    with pytest.raises(RefusedError, match="secret sealed:bybit-main: opens only with a touch"):
        sources.get("sealed:bybit-main")
    sources.unseal({"bybit-main": Secret("sealed-secret-75")}, lambda name: f"no {name}")
    assert sources.get("sealed:bybit-main") == Secret("sealed-secret-75")
    with pytest.raises(RefusedError, match="secret sealed:vault: no vault"):
        sources.get("sealed:vault")


@pytest.mark.parametrize("name", ["", "-x", "Upper", "with space", "x" * 41, "dot.ted"])
def test_what_cannot_name_a_sealed_secret_is_refused_and_not_echoed(name: str) -> None:
    with pytest.raises(ValueError, match="a name has up to 40"):
        check_source(f"sealed:{name}")
    assert name_of(f"sealed:{name}") == "sealed:[secret]"


def test_the_sealed_names_among_sources_are_named_once() -> None:
    assert sealed_names(["env:A", "sealed:b", "sealed:a", "sealed:b"]) == ("b", "a")
    assert name_of("sealed:b") == "sealed:b"
    check_source("sealed:b")


def test_a_command_that_never_stops_printing_is_cut_off_at_once(sources: Sources) -> None:
    started = time.monotonic()
    with pytest.raises(RefusedError, match="longer than 65536 characters"):
        sources.get("command:yes")
    assert time.monotonic() - started < 5
