"""What a Bybit session signs with."""

from dataclasses import dataclass

from killswitch.secret import Secret


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key: its id and its secret."""

    api_key: Secret
    api_secret: Secret
