"""A KV mount that goes as a whole: what stands at its path, and the one long call that erases it.

Vault erases under the request: when the caller hangs up it stops, for good, and tells nobody. So
this call has a read time-out of its own, is never begun twice, and is known to the process.
"""

from typing import Final
from urllib.parse import quote

from killswitch.clients import vault_http as wire
from killswitch.clients.vault_secrets import Secrets, has_no_route, version_of
from killswitch.errors import RefusedError, UnreachableError
from killswitch.steps.vault_port import (
    Erased,
    Erasing,
    Gone,
    NoRightError,
    Standing,
    Tree,
)

ERASE_S: Final = 900.0
_SECRET_S: Final = 0.01  # ten times what raft storage needs


class Mounts(Secrets):
    """The mounts of one Vault, with what this run knows of them."""

    def look_at(self, mount: str) -> Standing:
        """See what stands at exactly `mount`, or stood there."""
        stood = self._memory.stood
        if mount in stood and self._is_erasing(mount):
            return Erasing(mount, stood[mount][0])
        status, body = self._mount_question(mount)
        if status == 403:
            return self._missing(mount)
        entry = self._as_mount(mount, status, body)
        if entry.path != mount:
            raise RefusedError(f"{mount} is no mount: it is a folder of {wire.plain(entry.path)}")
        try:
            found = self._see(entry, mount)
        except NoRightError as error:
            found = Tree(mount, wire.plain(entry.accessor), version_of(entry), "", (), (error,))
        count = len(found.names) if isinstance(found, Tree) else 0
        stood[mount] = (found.accessor, max(count, stood.get(mount, ("", 0))[1]))
        return found

    def erase(self, mount: str, accessor: str) -> None:
        """Disable the mount with all its data, and wait for the answer as long as it takes."""
        self._writing("disables no mount")
        _, count = self._memory.stood.get(mount, ("", 0))
        read_s = max(ERASE_S, count * _SECRET_S)
        url = f"/v1/sys/mounts/{quote(mount.removesuffix('/'))}"

        def send() -> None:
            vault = self._patient_client(read_s)
            status, body = self._ask(lambda _vault: vault.adapter.delete(url), vault)
            if status == 403:
                raise self._refusal(f"may not disable {mount}: {wire.not_ok(status, body)}")
            error = wire.not_ok(status, body)
            if status >= 400:
                # Vault ends also this request after its max_request_duration, 90 s, with a 400.
                raise UnreachableError(f"{error}; asked again, it goes on where it stopped")
            if status not in {200, 204}:
                raise error
            self._memory.erased[mount] = accessor

        self._unfinished.run(self._call(mount), f"Vault is still erasing {mount}", send)

    def _missing(self, mount: str) -> Erased | Gone:
        """Tell what it means that no mount, or none that the token has a right to, is there."""
        url = f"/v1/{quote(mount)}metadata/"
        status, body = self._ask(lambda vault: vault.adapter.list(url))
        if not has_no_route(status, body):
            raise self._refusal(f"{mount}: no such mount, or no right under it")
        known = self._memory
        if mount in known.erased:
            saw = "erased: DELETE answered 204, no route is left"
            return Erased(mount, known.erased[mount], saw)
        if mount in known.ended:
            return Erased(mount, known.ended[mount], "erased by an earlier halt, no route is left")
        if mount in known.begun:
            return Gone(mount, known.begun[mount])
        stood = "it stood there at the first look, and " if mount in known.stood else ""
        raise RefusedError(f"{stood}no mount is at {mount}: erased, renamed, or a typing error")

    def _is_erasing(self, mount: str) -> bool:
        name = self._call(mount)
        return any(call.name == name for call in self._unfinished.under_way())

    def _call(self, mount: str) -> str:
        return f"{self._address} {self._namespace or ''} {mount}"
