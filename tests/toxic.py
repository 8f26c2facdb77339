"""A TCP proxy on loopback with faults that can be switched while it runs."""

import socket
import ssl
import struct
import threading
import time
from contextlib import closing, suppress
from typing import Final, Literal, Self

Mode = Literal["pass", "blackhole", "drip", "reset", "cut", "garbage"]
_CHUNK: Final = 1 << 16
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class ToxicProxy:
    """Passes connections on to `target`, (host, port), and spoils them as `mode` says.

    "pass": nothing. "blackhole": takes everything, answers nothing, open connections too.
    "drip": answers one byte per `drip_s`. "reset": resets every connection, open ones too. "cut":
    closes a connection after `cut_after` bytes of its answers. "garbage": answers noise at once.

    With `tls` it speaks TLS to clients, and passes the clear text on.
    """

    def __init__(
        self,
        target: tuple[str, int],
        mode: Mode = "pass",
        *,
        tls: ssl.SSLContext | None = None,
        drip_s: float = 0.05,
        cut_after: int = 100,
    ) -> None:
        self.target = target
        self.mode = mode
        self.drip_s = drip_s
        self.cut_after = cut_after
        self.accepted = 0
        self._tls = tls
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = ("127.0.0.1", self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._open: set[socket.socket] = set()
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http{'s' if self._tls else ''}://{self.address[0]}:{self.address[1]}"

    def stop(self) -> None:
        """Take no connection any more, and reset those that are open."""
        self._closing.set()
        self._listener.close()
        with suppress(OSError), closing(socket.create_connection(self.address, 0.2)):
            pass  # wakes what waits in accept
        self._thread.join(5)
        self.reset()

    def reset(self) -> None:
        """Reset every open connection."""
        with self._mutex:
            for one in self._open:
                _reset(one)
            self._open.clear()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with self._mutex:
            self._open.add(client)
        try:
            if self.mode == "reset":
                client.recv(1)  # it believes to be connected
                _reset(client)
                return
            if self.mode == "garbage":
                client.sendall(b"\x00\xff noise \r\n\r\n" * 8)
                client.recv(_CHUNK)
                return
            if self.mode == "blackhole":
                self._swallow(client)
                return
            if self._tls is not None:
                client = self._tls.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
                with self._mutex:
                    self._open.add(client)
                _shake_hands(client)
            self._relay(client)
        except OSError:
            pass
        finally:
            with self._mutex:
                self._open.discard(client)
            with suppress(OSError):
                client.close()

    def _relay(self, client: socket.socket) -> None:
        with closing(socket.create_connection(self.target, 5)) as server:
            server.settimeout(None)
            up = threading.Thread(target=self._up, args=(client, server), daemon=True)
            up.start()
            self._down(server, client)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while part := client.recv(_CHUNK):
                server.sendall(part)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        sent = 0
        while part := server.recv(_CHUNK):
            match self.mode:
                case "reset":
                    _reset(client)
                    return
                case "blackhole":
                    continue
                case "cut":
                    part = part[: max(0, self.cut_after - sent)]
                    if not part:
                        return
                    client.sendall(part)
                case "drip":
                    for byte in part:
                        client.sendall(bytes([byte]))
                        if self._closing.wait(self.drip_s):
                            return
                case _:
                    client.sendall(part)
            sent += len(part)
            if self.mode == "cut" and sent >= self.cut_after:
                return

    def _swallow(self, client: socket.socket) -> None:
        client.settimeout(0.1)
        while not self._closing.is_set():
            with suppress(TimeoutError):
                if not client.recv(_CHUNK):
                    return
            time.sleep(0)


def _shake_hands(client: ssl.SSLSocket) -> None:
    try:
        client.do_handshake()
    except ssl.SSLError:
        # Closed with something unread, it would be reset, and the alert lost.
        client.settimeout(0.5)
        with suppress(OSError):
            while socket.socket.recv(client, _CHUNK):
                pass
        raise


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RD)  # wakes its reader
    with suppress(OSError):
        one.close()
