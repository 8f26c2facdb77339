"""What the documents say about the command line is what the command line does."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer.main

from killswitch import sections
from killswitch.cli.app import command_line
from killswitch.cli.report import RECOVERY
from killswitch.exit_codes import ExitCode

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
]


def command_lines(text: str) -> Iterator[str]:
    """Yield every `killswitch ...` in a code block or in backticks."""
    inside = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside:
            yield line.strip()
        else:
            yield from re.findall(r"`(killswitch [^`]+)`", line)


def words_of(line: str) -> list[str]:
    """Return the words after `killswitch` in a line that runs it, or none."""
    line = line.removeprefix("$ ").split("  #")[0].split(" | ")[0].split(" > ")[0]
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    return words[1:] if words and words[0] == "killswitch" else []


def documented() -> list[str]:
    lines = (line for document in DOCUMENTS for line in command_lines(document.read_text()))
    return sorted({shlex.join(words) for line in lines if (words := words_of(line))})


@pytest.mark.parametrize("line", documented())
def test_every_command_in_the_documents_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    command = typer.main.get_command(command_line())
    if "--revoke" in words and words[0].startswith("-"):
        words = ["revoke", *(word for word in words if word != "--revoke")]
    options = {name for part in command.params for name in part.opts} | {"--help", "-h"}
    for word in words:
        inner = getattr(command, "commands", {}).get(word)
        if inner is not None:
            command = inner
            options |= {name for part in command.params for name in part.opts}
        elif word.startswith("-"):
            assert word.split("=")[0] in options, f"no option {word} in: killswitch {line}"
        elif hasattr(command, "commands"):
            raise AssertionError(f"no command {word} in: killswitch {line}")


def test_there_are_documented_commands_to_check() -> None:
    assert len(documented()) > 20


def test_the_runbooks_table_of_exit_codes_is_the_programs() -> None:
    _, _, rest = (ROOT / "docs/runbook.md").read_text().partition("### Exit codes")
    table, _, _ = rest.partition("\n#")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", table, re.MULTILINE)
    assert {int(code): text for code, text in rows} == {int(c): c.meaning for c in ExitCode}


def test_what_the_runbook_quotes_from_the_touch_prompt_is_what_it_says() -> None:
    _, _, rest = (ROOT / "docs/runbook.md").read_text().partition("### No key blinks")
    table, _, _ = rest.partition("\n#")
    quoted = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    code = [
        ROOT / "killswitch/cli/authorise.py",
        *(ROOT / "killswitch/authority").glob("*.py"),
    ]
    said = "".join(path.read_text() for path in code)
    assert len(quoted) > 10
    assert [text for text in quoted if text not in said] == []


def test_the_runbook_explains_every_label_that_stands_under_the_verdict() -> None:
    _, _, rest = (ROOT / "docs/runbook.md").read_text().partition("| Label | What it means |")
    first = (line.split("|")[1] for line in rest.partition("\n\n")[0].splitlines()[1:])
    explained = {label for cell in first for label in re.findall(r"`(.+?)`", cell)}
    code = [*(ROOT / "killswitch").glob("*.py"), *(ROOT / "killswitch").glob("[cs]*/*.py")]
    said = {
        label
        for path in code
        for label in re.findall(r'\b(?:Note|Line)\(\s*"([a-z ]+)"', path.read_text())
    }
    assert len(said) > 10
    assert said - explained == set()


def test_the_runbook_shows_the_list_that_resolve_prints() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    printed = "\n".join(f"{number}. {step}" for number, step in enumerate(RECOVERY, 1))
    assert f"```text\n{printed}\n```" in runbook


@pytest.mark.parametrize("name", ["keys", "secrets", "journal", "halt", "drill"])
def test_the_example_shows_every_setting_with_its_default(name: str) -> None:
    shown = tomllib.loads((ROOT / "killswitch/killswitch.toml.example").read_text())[name]
    section = getattr(sections.File(), name)
    assert set(shown) == set(section.__struct_fields__)
    assert msgspec.convert(shown, type(section)) == section


def test_the_example_seals_every_credential() -> None:
    text = (ROOT / "killswitch/killswitch.toml.example").read_text()
    credentials = re.findall(r'^(?:api_key|api_secret|token) = "(\w+):', text, re.MULTILINE)
    assert len(credentials) > 5
    assert set(credentials) == {"sealed"}


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"
