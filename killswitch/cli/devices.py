"""Which security keys there are to touch: the real ones, or the sandbox's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from killswitch.config import Config

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice


@dataclass(frozen=True, slots=True)
class Found:
    """Where keys are looked for, and what explains that there is none."""

    devices: "Callable[[], Sequence[CtapDevice]]"
    diagnose: Callable[[], str]


def find_devices(config: Config, *, yes: bool, no_input: bool) -> Found:
    """Return where this configuration's keys are.

    Raises:
        UsageError: --yes was asked of a real key, or Enter of nobody.
    """
    if config.sandbox is not None:
        from killswitch.cli.software_key import software_key_devices

        return Found(
            software_key_devices(config, yes=yes, no_input=no_input),
            lambda: "Enter was not pressed",
        )
    if yes:
        from killswitch.errors import UsageError

        raise UsageError(
            "--yes stands for the sandbox's software key only",
            hint="a real key wants a real touch: run it again without --yes",
        )
    from killswitch.authority.devices import diagnose
    from killswitch.authority.system_key import plugged_in

    return Found(plugged_in(), diagnose)
