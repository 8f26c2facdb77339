"""A KV mount that goes as a whole: what stands at its path, and the one long call that erases it.

Vault erases under the request: when the caller hangs up it stops, for good, and tells nobody. So
this call has a read time-out of its own, is never begun twice, and is known to the process. Vault
ends also this request after its max_request_duration, 90 s, with a 400: the call then asks again.
"""

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from killswitch.clients import vault_http as wire
from killswitch.clients.vault_secrets import Secrets, has_no_route, version_of
from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.steps.vault_port import (
    Erased,
    Erasing,
    Gone,
    NoRightError,
    Standing,
    Tree,
)

if TYPE_CHECKING:
    import hvac

_PAUSE_S: Final = 0.5


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
        self._stands(mount, found)
        return found

    def erase(self, mount: str, accessor: str) -> None:
        """Disable the mount with all its data, and wait for the answer as long as it takes."""
        self._writing("disables no mount")
        url = f"/v1/sys/mounts/{quote(mount.removesuffix('/'))}"
        word = ""

        def ask(vault: "hvac.Client") -> object:
            # At each try: while the rate limit was waited out, it may have been moved.
            self._demand_unmoved(mount, accessor, word)
            return vault.adapter.delete(url)

        def send() -> None:
            nonlocal word
            vault, end = self._patient_client(self._erase_s), time.monotonic() + self._erase_s
            status, body = self._ask(ask, vault)
            # Here and not in a later look: the run may have ended by then.
            while status == 400 and not self._is_readable(mount) and time.monotonic() < end:
                time.sleep(_PAUSE_S)
                word = " again"
                status, body = self._ask(ask, vault)
            if status == 403:
                raise self._refusal(f"may not disable {mount}: {wire.not_ok(status, body)}")
            if status not in {200, 204}:
                raise wire.not_ok(status, body)
            self._memory.erased[mount] = accessor

        self._unfinished.run(self._call(mount), f"Vault is still erasing {mount}", send)

    def _demand_unmoved(self, mount: str, accessor: str, word: str) -> None:
        """See directly before its erasing that the mount stands where it was seen, or is gone."""
        untold = f"{mount} was not told to go{word}"
        try:
            status, body = self._mount_question(mount)
        except UnreachableError as error:
            raise UnreachableError(f"{untold}: {error.problem}") from None
        stood = self._memory.stood.get(mount, ("", 0))[0]
        found = "" if status == 403 else self._as_mount(mount, status, body).accessor
        if wire.plain(found) != stood or stood not in {"", accessor}:
            raise UnreachableError(f"{untold}: another mount is there, or none")

    def _is_readable(self, mount: str) -> bool:
        """Tell a mount that Vault did not begin to erase: it still lists what is in it."""
        try:
            status, body = self._list_root(mount)
            return status == 200 or (status == 404 and not has_no_route(status, body))
        except VendorError:
            return False  # its words would be taken for those of the erasing

    def _list_root(self, mount: str) -> tuple[int, bytes]:
        url = f"/v1/{quote(mount)}metadata/"
        return self._ask(lambda vault: vault.adapter.list(url))

    def _missing(self, mount: str) -> Erased | Gone:
        """Tell what it means that no mount, or none that the token has a right to, is there."""
        status, body = self._list_root(mount)
        if not has_no_route(status, body):
            raise self._refusal(f"{mount}: no such mount, or no right under it")
        known = self._memory
        last = known.stood.get(mount, ("", 0))[0]
        if mount in known.erased and last in {"", known.erased[mount]}:
            saw = "erased: DELETE answered 204, no route is left"
            return Erased(mount, known.erased[mount], saw)
        # What was ended before this run says nothing of a mount that stood there in it.
        if mount in known.ended and not last:
            return Erased(mount, known.ended[mount], "erased by an earlier halt, no route is left")
        if mount in known.begun and not last:
            return Gone(mount, known.begun[mount])
        stood = "it stood there at the first look, and " if last else ""
        raise RefusedError(f"{stood}no mount is at {mount}: erased, renamed, or a typing error")

    def _is_erasing(self, mount: str) -> bool:
        name = self._call(mount)
        return any(call.name == name for call in self._unfinished.under_way())

    def _call(self, mount: str) -> str:
        return f"{self._address} {self._namespace or ''} {mount}"
