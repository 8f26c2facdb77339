"""`killswitch.toml`, parsed once: what is common must be right, a vendor's section may be broken.

An unknown key anywhere, or a fault in a common section, is a ConfigError: nothing is done. A fault
in one system's section is kept as its `problem`, so that it costs that system alone.
"""

import difflib
import hashlib
import os
import re
import stat
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from killswitch.errors import ConfigError
from killswitch.sections import (
    SYSTEMS,
    DrillSection,
    File,
    HaltSection,
    KeysSection,
    SandboxSection,
    Section,
    SystemSection,
)
from killswitch.toml_lines import Place, line_of

FILE_NAME: Final = "killswitch.toml"


@dataclass(frozen=True, slots=True)
class System:
    """One configured system: its section, or what is wrong with it.

    `kind` is its table's name, with dashes: "synced-secrets".
    """

    kind: str
    name: str
    section: SystemSection | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that a halt can be started with; paths are absolute."""

    path: Path
    sha256: str
    name: str
    keys: KeysSection
    halt: HaltSection
    drill: DrillSection
    sandbox: SandboxSection | None
    systems: tuple[System, ...]
    key_file: Path
    bundle_file: Path
    journal_file: Path
    fallback_file: Path

    def resolve(self, path: str) -> Path:
        """Return `path` as written in the file: `~` is home, the rest is beside the file."""
        return _beside(self.path, path)


def find_config(argument: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the first of: the argument, the environment, this folder, the user's folder."""
    if argument is not None:
        return argument
    if named := environment.get("KILLSWITCH_CONFIG"):
        return Path(named)
    here = Path(FILE_NAME)
    if here.is_file():
        return here.absolute()
    import platformdirs  # noqa: PLC0415 (30 ms that the usual case need not pay)

    user = platformdirs.user_config_path("killswitch") / FILE_NAME
    return user if user.is_file() else None


def load_config(path: Path) -> Config:
    """Read and check one file.

    Raises:
        ConfigError: it cannot be read, is no plain file, is not TOML, has an unknown key, or a
            common section or the list of systems is wrong. The text names the line.
    """
    try:
        mode = path.stat().st_mode
        # Reading a FIFO or a device may never end.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ConfigError(f"{path}: not a plain file", hint="name the file itself: --config")
        raw = path.read_bytes()
        text = raw.decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="killswitch init writes a commented one"
        ) from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise ConfigError(f"{path}: not TOML: {error}", hint=_CHECK_HINT) from error
    for where in _unknown_keys(table, File, ()):
        raise _unknown_key(path, text, where)
    common = {key: value for key, value in table.items() if key not in SYSTEMS}
    try:
        parsed = msgspec.convert(common, type=File)
    except msgspec.ValidationError as error:
        line = line_of(text, _place(error))
        raise ConfigError(f"{path}: line {line}: {_in_words(error)}", hint=_CHECK_HINT) from error
    systems = tuple(_systems(path, text, table))
    _refuse_twins(path, systems)
    return Config(
        path=path.absolute(),
        sha256=hashlib.sha256(raw).hexdigest(),
        name=parsed.name,
        keys=parsed.keys,
        halt=parsed.halt,
        drill=parsed.drill,
        sandbox=parsed.sandbox,
        systems=systems,
        key_file=_beside(path, parsed.keys.file),
        bundle_file=_beside(path, parsed.secrets.file),
        journal_file=_state_file(path, parsed.journal.file, "journal.db"),
        fallback_file=_state_file(path, parsed.journal.fallback, "journal-fallback.jsonl"),
    )


_CHECK_HINT: Final = "killswitch config check reads it the way a halt does"


def _systems(path: Path, text: str, table: Mapping[str, Any]) -> Iterator[System]:
    for key, section_type in SYSTEMS.items():
        kind = key.replace("_", "-")
        entries = table.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise ConfigError(
                f"{path}: line {line_of(text, (key,))}: [{key}] must be [[{key}]], "
                "one for each system",
                hint=_CHECK_HINT,
            )
        for number, entry in enumerate(entries):
            name = str(entry.get("name", f"number {number + 1}"))
            try:
                section = msgspec.convert(entry, type=section_type)
            except msgspec.ValidationError as error:
                line = line_of(text, (key, number))
                yield System(kind, name, None, f"line {line}: {_in_words(error)}")
            else:
                yield System(kind, name, section)


def _refuse_twins(path: Path, systems: tuple[System, ...]) -> None:
    seen: set[tuple[str, str]] = set()
    for system in systems:
        if (system.kind, system.name) in seen:
            table = system.kind.replace("-", "_")
            raise ConfigError(
                f'{path}: two [[{table}]] sections are named "{system.name}"',
                hint="give each its own name: reports and the journal tell them apart by it",
            )
        seen.add((system.kind, system.name))


def _unknown_keys(value: Any, kind: Any, where: Place) -> Iterator[tuple[Place, list[str]]]:
    """Yield the place of every key that `kind` does not have, with the keys it has."""
    struct = _struct_in(kind)
    if struct is None:
        return
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unknown_keys(item, struct, (*where, number))
    elif isinstance(value, dict):
        fields = typing.get_type_hints(struct)
        known = list(struct.__struct_fields__)
        for key, item in value.items():
            if key not in known:
                yield (*where, key), known
            else:
                yield from _unknown_keys(item, fields[key], (*where, key))


def _struct_in(kind: Any) -> type[Section] | None:
    """Return the section type inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    found = (_struct_in(part) for part in typing.get_args(kind))
    return next((part for part in found if part is not None), None)


def _unknown_key(path: Path, text: str, found: tuple[Place, list[str]]) -> ConfigError:
    where, known = found
    key = str(where[-1])
    close = difflib.get_close_matches(key, known, n=1)
    meant = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(known)}"
    return ConfigError(
        f'{path}: line {line_of(text, where)}: unknown key "{key}", {meant}', hint=_CHECK_HINT
    )


def _in_words(error: msgspec.ValidationError) -> str:
    text = str(error).replace("`$.", "`").replace("Object missing required", "missing the required")
    return text[:1].lower() + text[1:]


def _place(error: msgspec.ValidationError) -> Place:
    """Return where in a common section the fault is."""
    found = re.search(r"`\$\.([^`]+)`", str(error))
    return tuple(found[1].split(".")) if found else ()


def _beside(config: Path, path: str) -> Path:
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{config}: {path}: there is no such user", hint="write the path in full"
        ) from error
    return expanded if expanded.is_absolute() else config.absolute().parent / expanded


def _state_file(config: Path, path: str, default: str) -> Path:
    if path:
        return _beside(config, path)
    import platformdirs  # noqa: PLC0415 (as above)

    # The fallback lives in another folder than the journal: one may be full or read-only.
    folder = (
        platformdirs.user_state_path if default == "journal.db" else platformdirs.user_data_path
    )
    return folder("killswitch") / default
