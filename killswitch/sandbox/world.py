"""The small world: one server per vendor on loopback, a software key, and a configuration."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from killswitch.authority.bundle import Bundle
from killswitch.authority.changes import enrolment_scope
from killswitch.authority.enrolment import enroll
from killswitch.authority.files import write_private
from killswitch.authority.proof import verify
from killswitch.authority.ring import SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.document import enrolment_document
from killswitch.journal.history import KEY_ENROLLED, SECRETS_SET
from killswitch.journal.store import Journal, NewEvent
from killswitch.model import Mode, Order
from killswitch.orders import make_order
from killswitch.priming import prime
from killswitch.sandbox.bybit import BybitServer
from killswitch.sandbox.external_secrets_server import SyncedKubernetesServer, SyncedVaultServer
from killswitch.sandbox.kakunin import KakuninServer
from killswitch.sandbox.kubernetes_identity import UID
from killswitch.sandbox.server import VendorServer
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice
from killswitch.sandbox.telegram import TelegramServer
from killswitch.sandbox.world_config import CONFIG
from killswitch.secret import Secret

JOURNAL_NAME: Final = "sandbox-journal.db"
SERVERS: Final[tuple[type[VendorServer], ...]] = (
    SyncedKubernetesServer,
    BybitServer,
    KakuninServer,
    SyncedVaultServer,
    TelegramServer,
)


def all_traps() -> dict[str, str]:
    """Return every trap of every server, named "vendor-trap", with what it does."""
    return {
        f"{server.name}-{trap}": sentence
        for server in SERVERS
        for trap, sentence in server.all_traps().items()
    }


class World:
    """The five servers, running, and the folder with what a halt of them needs.

    Args:
        folder: an empty folder; gets the configuration, the secrets and the software key.
        traps: names from `all_traps`.
        open_reads: let kubectl look without the token, which it does not send over plain http.
        sealed: seal the credentials to the software key; else they lie in files beside it.
        stay_down_s, patience_s: go into the configuration; short, because nothing here is far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        traps: Iterable[str] = (),
        stay_down_s: float = 1.0,
        patience_s: float = 5.0,
        open_reads: bool = False,
        sealed: bool = False,
    ) -> None:
        prime()  # the servers answer in threads of their own
        self._sealed = sealed
        self.folder = folder
        self.config_file = folder / "killswitch.toml"
        self._stay_down_s = stay_down_s
        self._patience_s = patience_s
        chosen = set(traps)
        unknown = chosen - set(all_traps())
        if unknown:
            raise ValueError(f"no such trap: {', '.join(sorted(unknown))}")
        self.kubernetes = SyncedKubernetesServer(
            traps=_for("kubernetes", chosen), open_reads=open_reads
        )
        self.bybit = BybitServer(traps=_for("bybit", chosen))
        self.kakunin = KakuninServer(traps=_for("kakunin", chosen))
        self.vault = SyncedVaultServer(self.kubernetes, traps=_for("vault", chosen))
        self.telegram = TelegramServer(traps=_for("telegram", chosen))

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        *,
        now: datetime,
        journal: Path | None = None,
        traps: Iterable[str] = (),
        stay_down_s: float = 1.0,
        open_reads: bool = False,
        sealed: bool = False,
    ) -> Iterator[Self]:
        """Run a world, set up in `folder`, until the block ends.

        `journal` is where its evidence goes, by default beside the user's journal.
        """
        world = cls(
            folder, traps=traps, stay_down_s=stay_down_s, open_reads=open_reads, sealed=sealed
        )
        with ExitStack() as stack:
            for server in world.servers:
                server.start()
                stack.callback(server.stop)
            world.set_up(journal or _default_journal(), now)
            yield world

    @property
    def servers(self) -> tuple[VendorServer, ...]:
        """The servers, in the order a person reads them."""
        return (self.kubernetes, self.bybit, self.kakunin, self.vault, self.telegram)

    def live(self) -> dict[str, list[str]]:
        """Return what is live, per kind, by the servers' own books; empty when halted."""
        found = {server.name: server.live() for server in self.servers}
        found["synced-secrets"] = self.kubernetes.live_secrets()
        return {name: things for name, things in found.items() if things}

    def set_up(self, journal: Path, now: datetime) -> None:
        """Write the secrets and the configuration, and enrol a new software key."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kubeconfig = self.kubernetes.kubeconfig(with_token=not self._sealed)
        write_private(self.folder / "kubeconfig.yaml", kubeconfig.encode())
        for name, value in self._credentials().items() if not self._sealed else ():
            write_private(self.folder / name, value.encode())
        write_private(self.config_file, self._config(journal).encode())
        SoftKey.load(self.folder / "spare-key.json", touch=lambda _cancel: True)
        ring = KeyRing((self._enrol(Journal(journal), now),))
        ring.save(self.folder / "keys.json")
        if self._sealed:
            self._seal(ring, Journal(journal), now)

    def _enrol(self, journal: Journal, now: datetime) -> EnrolledKey:
        """Make the software key and enrol it, with its own touch, as the journal's newest key."""
        soft = SoftKey.load(self.folder / "software-key.json", touch=lambda _cancel: True)
        orders: list[Order] = []

        def challenge(key: EnrolledKey) -> bytes:
            orders.append(
                make_order(
                    mode=Mode.KEYS,
                    scope=enrolment_scope(key),
                    config_sha256="",
                    head=journal.head(),
                    now=now,
                    random_bytes=os.urandom,
                )
            )
            return orders[-1].challenge()

        enrolment = enroll(
            SoftKeyDevice(soft),
            ring=KeyRing(),
            label="software key",
            operator="you",
            rp_id=SANDBOX_RP_ID,
            now=now,
            cancel=threading.Event(),
            on_touch=lambda _number, _of: None,
            challenge=challenge,
            role="both",
        )
        order = orders[-1]
        proof = verify(order, enrolment.assertion, [enrolment.key], sandbox=True)
        journal.append(
            NewEvent(
                id=f"{order.id}.enrolled",
                type=KEY_ENROLLED,
                time=order.issued_at,
                data=enrolment_document(enrolment, order, proof, None),
            )
        )
        return enrolment.key

    def _seal(self, ring: KeyRing, journal: Journal, now: datetime) -> None:
        """Seal every credential to the software key; no file holds one in clear then."""
        bundle = Bundle()
        secrets = {"kubernetes-token": self.kubernetes.token, **self._credentials()}
        for name, value in secrets.items():
            bundle = bundle.with_secret(name, Secret(value), ring.recipients(), now)
        bundle.save(self.folder / "secrets.json")
        journal.append(
            NewEvent(
                id=f"{SECRETS_SET}.{bundle.sha256[:32]}",
                type=SECRETS_SET,
                time=f"{now:%Y-%m-%dT%H:%M:%S}Z",
                data={"name": ", ".join(bundle.names), "bundle_sha256": bundle.sha256},
            )
        )

    def _credentials(self) -> dict[str, str]:
        secrets = {
            "bybit-api-key": self.bybit.master_key,
            "bybit-api-secret": self.bybit.master_secret,
            "kakunin-api-key": self.kakunin.api_key,
            "vault-token": self.vault.token,
            "telegram-token": self.telegram.token,
        }
        for sub, (key, secret) in self.bybit.held.items():
            secrets[f"bybit-held-{sub}-key"] = key
            secrets[f"bybit-held-{sub}-secret"] = secret
        return secrets

    def _config(self, journal: Path) -> str:
        source = "sealed" if self._sealed else "file"
        held = "".join(
            f'\n[[bybit.held]]\nsub = "{sub}"\n'
            f'api_key = "{source}:bybit-held-{sub}-key"\n'
            f'api_secret = "{source}:bybit-held-{sub}-secret"\n'
            for sub in self.bybit.held
        )
        chats = "\n".join(
            f'[[telegram]]\nname = "{chat.title}"\ntoken = "{source}:telegram-token"\n'
            f'chat_id = "{chat.id}"\nbase_url = "{self.telegram.base_url}"\n'
            for chat in self.telegram.chats.values()
        )
        return CONFIG.format(
            source=source,
            cluster_uid=UID,
            token='token = "sealed:kubernetes-token"\n' if self._sealed else "",
            rp_id=json.dumps(SANDBOX_RP_ID),
            journal=json.dumps(str(journal)),
            fallback=json.dumps(str(journal.with_name("sandbox-fallback.jsonl"))),
            stay_down_s=self._stay_down_s,
            patience_s=self._patience_s,
            bybit=json.dumps(self.bybit.url),
            held=held,
            kakunin=json.dumps(self.kakunin.base_url),
            agents=json.dumps(sorted(self.kakunin.agents)),
            vault=json.dumps(self.vault.url),
            chats=chats,
        )


def _for(vendor: str, chosen: set[str]) -> list[str]:
    return [name.removeprefix(f"{vendor}-") for name in chosen if name.startswith(f"{vendor}-")]


def _default_journal() -> Path:
    import platformdirs  # noqa: PLC0415 (30 ms that tests with their own journal need not pay)

    return platformdirs.user_state_path("killswitch") / JOURNAL_NAME
