"""`killswitch init` and `killswitch config check`: a configuration to begin with, its parser."""

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from killswitch.cli.session import Session
from killswitch.errors import ConfigError, UsageError


def init(
    session: Session,
    *,
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("killswitch.toml"),
) -> None:
    """Write a commented configuration to start from."""
    text = resources.files("killswitch").joinpath("killswitch.toml.example").read_text("utf-8")
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(text)
        file.chmod(0o600)
    except FileExistsError:
        raise UsageError(
            f"{file} is already there",
            effect="it was not changed",
            hint="name another file: killswitch init FILE",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", effect="nothing was written", hint="name another file"
        ) from error
    session.terminal.document({"schema_version": 1, "document": "init", "file": str(file)})
    session.terminal.result(f"wrote {file}")
    session.terminal.hint(
        "next: fill it in, then\n"
        f"  killswitch config check --config {file}\n"
        f"  killswitch keys enroll --config {file} --operator NAME --label blue --label black\n"
        f"  killswitch secrets set --config {file} bybit-main-key     (and the others)\n"
        f"  killswitch status --config {file}\n"
        f"  killswitch drill --config {file}"
    )


def check(session: Session) -> None:
    """Read the configuration the way a halt does, and name everything that is wrong with it."""
    from killswitch.config import load_config
    from killswitch.sources import Sources
    from killswitch.wiring import units

    config = load_config(session.demand_config())
    sources = Sources(config.resolve, session.environment)
    parts = units(config, sources)
    problems = [(unit.system, unit.kind, unit.problem) for unit in parts if unit.problem]
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "config-check",
            "file": str(config.path),
            "sha256": config.sha256,
            "systems": [
                {"kind": unit.kind, "system": unit.system, "problem": unit.problem}
                for unit in parts
            ],
        }
    )
    if all(unit.evidence for unit in parts):
        raise ConfigError(
            f"{config.path} names no system to halt",
            hint="add a [[kubernetes]], [[bybit]], [[kakunin]] or [[vault]] section",
        )
    for unit in parts:
        word = f"FAIL  {unit.problem}" if unit.problem else "ok"
        session.terminal.result(f" {unit.kind:<14} {unit.system}: {word}")
    if problems:
        system, kind, problem = problems[0]
        raise ConfigError(
            f"{kind} {system}: {problem}",
            effect="a halt would go on without it and could not say HALTED",
            hint="mend the section, then run this again",
        )
    session.terminal.result(f"{config.path} can be used ({config.sha256[:4]} {config.sha256[4:8]})")
