"""How Bybit tells that a request is recent, and from who holds the key's secret."""

import hashlib
import hmac

from werkzeug.datastructures import Headers

from killswitch.sandbox.bybit_books import Key, NoError


def check_signature(headers: Headers, key: Key, payload: bytes, now_ms: int) -> None:
    """Answer 10002 unless the request is recent, 10004 unless the key's secret signed it."""
    stamp = headers.get("X-BAPI-TIMESTAMP", "")
    window = headers.get("X-BAPI-RECV-WINDOW", "5000")
    if not (stamp.isdigit() and window.isdigit()) or not (
        now_ms - int(window) <= int(stamp) < now_ms + 1000
    ):
        times = f"req_timestamp[{stamp}],server_timestamp[{now_ms}],recv_window[{window}]"
        raise NoError(10002, f"invalid request, please check your server timestamp. {times}")
    signed = f"{stamp}{key.id}{window}".encode() + payload
    want = hmac.new(key.secret.encode(), signed, hashlib.sha256).hexdigest()
    given = headers.get("X-BAPI-SIGN", "")
    if not hmac.compare_digest(want.encode(), given.encode()):
        origin = signed.decode(errors="replace")
        raise NoError(10004, f"error sign! origin_string[{origin}]")
