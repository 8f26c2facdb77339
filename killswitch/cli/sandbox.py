"""`killswitch sandbox`: the small world in the foreground, to try every command against."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from killswitch.cli.session import Session
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.sandbox.world import World


def sandbox(
    session: Session,
    *,
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the configuration and the made-up secrets go.")
    ] = Path("killswitch-sandbox"),
    trap: Annotated[
        list[str] | None, typer.Option("--trap", metavar="NAME", help="Switch a trap on.")
    ] = None,
    list_traps: Annotated[
        bool, typer.Option("--list-traps", help="Name every trap, and end.")
    ] = False,
) -> None:
    """Run a small world on this machine: Kubernetes, Bybit, Kakunin, Vault and Telegram.

    It writes a configuration for itself, so that `killswitch --config ... --revoke`, `status` and
    `drill` can be tried against it from a second terminal. Ctrl-C ends it.
    """
    from killswitch.cli.drill import demand_sandbox

    world_class = demand_sandbox()
    from killswitch.sandbox.world import all_traps

    traps = all_traps()
    if list_traps:
        session.terminal.document({"schema_version": 1, "document": "traps", "traps": traps})
        for name, sentence in traps.items():
            session.terminal.result(f"{name:<28} {sentence}")
        return
    for name in trap or []:
        if name not in traps:
            raise UsageError(
                f"there is no trap {name}", effect="nothing was started", hint="--list-traps"
            )
    with world_class.running(folder, now=session.now(), traps=trap or [], open_reads=True) as world:
        _introduce(session, world)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            session.terminal.say("SANDBOX", "ended")


def _introduce(session: Session, world: "World") -> None:
    say = session.terminal.result
    say("SANDBOX  a small world on this machine; Ctrl-C ends it")
    for server in world.servers:
        say(f"SANDBOX     {server.name:<11} {server.url}")
    config = world.config_file
    kubeconfig = world.folder / "kubeconfig.yaml"
    say("")
    say("in a second terminal:")
    say(f"  killswitch status --config {config}")
    say(f"  killswitch --revoke --config {config}")
    say(f"  kubectl --kubeconfig {kubeconfig} -n trading get pods")
    token, vault = world.vault.token, world.vault.url
    say(f"  curl -H 'X-Vault-Token: {token}' '{vault}/v1/trading/metadata/?list=true'")
