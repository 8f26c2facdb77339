"""The checks of scripts/e2e-hid, inside the virtual machine; the exit code says how it went."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evidence import of_last_halt
from runs import WrongError, answer
from stage import PATIENT, RUN_S, Stage

Check = Callable[[Stage], None]
_CHECKS: list[tuple[str, Check]] = []
_PROMPT = r"\d+ s left"
"""How every line ends that tells what to do with a key."""
_LATE_S = 10.0
_MEET_S = 2.0
"""In this time both programs ask the key."""


def check(sentence: str) -> Callable[[Check], Check]:
    """Add a check; the sentence is what is true if it passes."""

    def add(function: Check) -> Check:
        _CHECKS.append((sentence, function))
        return function

    return add


@check("libfido2's tools list the key that the kernel shows, and read what it can do")
def _libfido2(stage: Stage) -> None:
    stage.plugged()
    device = stage.alpha.plug()
    listed = answer(["fido2-token", "-L"])
    if f"{device}:" not in listed:
        raise WrongError(f"fido2-token -L does not list {device}: {listed}")
    told = answer(["fido2-token", "-I", device])
    if "FIDO_2_" not in told:
        raise WrongError(f"fido2-token -I: {told}")


@check("two keys are enrolled over /dev/hidraw")
def _enrolment(stage: Stage) -> None:
    stage.enrol()
    listed = stage.killswitch("keys", "list").demand(0, timeout_s=RUN_S)
    if not ('"alpha"' in listed and '"beta"' in listed):
        raise WrongError("keys list does not show both")


@check("a key plugged in 10 s after the prompt is used, and the drill passes")
def _late(stage: Stage) -> None:
    stage.plugged()
    drill = stage.drill()
    drill.wait_for(_PROMPT, timeout_s=RUN_S)
    time.sleep(_LATE_S)
    stage.alpha.plug()
    stage.alpha.touch()
    drill.demand(0, "alpha", timeout_s=RUN_S)


@check("of two keys that blink, the first touch wins and the other stops blinking")
def _race(stage: Stage) -> None:
    stage.plugged(stage.alpha, stage.beta)
    drill = stage.drill()
    stage.alpha.wait_for_blinking()
    stage.beta.touch()
    stage.alpha.wait_for_dark()
    drill.demand(0, 'touched: "beta"', timeout_s=RUN_S)


@check("two killswitch processes on one key: one waits for the other, and both pass")
def _two_processes(stage: Stage) -> None:
    stage.plugged(stage.alpha)
    drills = stage.drill(), stage.drill()
    for drill in drills:
        drill.wait_for(_PROMPT, timeout_s=RUN_S)
    for _ in drills:
        stage.alpha.wait_for_blinking()
        time.sleep(_MEET_S)
        stage.alpha.press()
    for drill in drills:
        drill.demand(0, timeout_s=RUN_S)


@check("a key pulled out in mid-touch is a message; plugged in again and touched, it is used")
def _unplugged(stage: Stage) -> None:
    stage.plugged(stage.beta)
    drill = stage.drill()
    stage.beta.wait_for_blinking()
    said = drill.wait_for("touch a security key", timeout_s=RUN_S)
    stage.beta.unplug()
    drill.wait_for("plug in|plugged in|pulled out|removed", timeout_s=RUN_S, after=said)
    stage.beta.plug()
    stage.beta.touch()
    drill.demand(0, 'touched: "beta"', timeout_s=RUN_S)


@check("a silent device is passed over: another key answers")
def _silent(stage: Stage) -> None:
    stage.plugged(stage.mute)
    drill = stage.drill()
    drill.wait_for(_PROMPT, timeout_s=RUN_S)
    stage.alpha.plug()
    stage.alpha.touch()
    drill.demand(0, 'touched: "alpha"', timeout_s=RUN_S)


@check("a user who may not open the key reads how to change that, and ends with 3")
def _no_permission(stage: Stage) -> None:
    stage.plugged()
    drill = stage.drill_without_rights(stage.alpha.plug())
    drill.demand(3, re.escape('KERNEL=="hidraw*"'), timeout_s=RUN_S)


@check("killswitch --revoke halts the sandbox: HALTED, and exit code 0")
def _halt(stage: Stage) -> None:
    stage.plugged(stage.alpha, stage.beta)
    halt = stage.killswitch("--revoke", "--verbose", *PATIENT, "--reason", "end to end")
    # An emulated processor loads for half a minute what takes a second: let it be loaded first.
    halt.wait_for(f"(?s)(?:ok reached.*?){{{stage.systems}}}", timeout_s=RUN_S)
    stage.alpha.touch()
    halt.demand(0, r"(?m)^HALTED\b", timeout_s=RUN_S)


@check("killswitch journal verify finds the chain and every touch intact")
def _journal(stage: Stage) -> None:
    stage.killswitch("journal", "verify").demand(0, r"(?m)^INTACT\b", timeout_s=RUN_S)


@check("the key signed this very order: its digest is the challenge")
def _challenge(stage: Stage) -> None:
    of_last_halt(stage.journal, stage.ring).demand_challenge()


@check("openssl verifies the halt's signature with the enrolled public key, and no other one")
def _openssl(stage: Stage) -> None:
    evidence = of_last_halt(stage.journal, stage.ring)
    evidence.check_with_openssl(stage.folder)
    forged = replace(evidence, client_data=evidence.client_data + b" ")
    forged.check_with_openssl(stage.folder, code=1)


@check("fido2-assert -V verifies the halt's assertion, and refuses one of another site")
def _fido2_assert(stage: Stage) -> None:
    evidence = of_last_halt(stage.journal, stage.ring)
    evidence.check_with_libfido2(stage.folder)
    replace(evidence, rp_id="elsewhere.example").check_with_libfido2(stage.folder, code=1)


def main() -> int:
    """Run every check in its order, and say how many passed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder) / "world")
        failed = sum(not _passes(stage, sentence, run) for sentence, run in _CHECKS)
    passed = len(_CHECKS) - failed
    print(f"e2e-hid: {passed} checks passed in {time.monotonic() - started:.0f} s", end="")
    print(f", {failed} FAILED" if failed else "")
    return min(failed, 1)


def _passes(stage: Stage, sentence: str, run: Check) -> bool:
    started = time.monotonic()
    trouble = ""
    try:
        run(stage)
    # Whatever goes wrong is this check's failure; the next ones still tell something.
    except Exception as error:  # noqa: BLE001
        trouble = str(error) if isinstance(error, WrongError) else repr(error)
    verdict = "FAIL" if trouble else "ok  "
    print(f"{verdict} {sentence}  ({time.monotonic() - started:.0f} s)")
    if trouble or os.environ.get("E2E_VERBOSE") == "1":
        told = [trouble, *stage.told()]
        print("".join(f"     | {line}\n" for text in told for line in text.splitlines()), end="")
    stage.end_runs()
    return not trouble


if __name__ == "__main__":
    sys.exit(main())
