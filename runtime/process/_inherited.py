"""What a child inherits of our own environment."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final

#: What the service manager that we run under, if there is one, means for us and for nobody else.
OURS_ALONE: Final = frozenset(
    {
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
        *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
    }
)


def hand_down(ours: Mapping[str, str]) -> dict[str, str]:
    """Return those of *ours*, the variables of our environment, that a child inherits."""
    return {name: value for name, value in ours.items() if name not in OURS_ALONE}


@final
class Inherited:
    """The variables that children inherit; they are gone through again only after a change.

    Who changes `os.environ`, as a hook may, changes what the next child gets.
    """

    def __init__(self) -> None:
        self._seen: Mapping[bytes, bytes] | None = None
        self._variables: Mapping[str, str] = {}

    def get(self) -> Mapping[str, str]:
        """Return them as they are now."""
        # `os.environ` encodes and decodes whatever it is asked for, one by one, which is the larger
        # part of a look. What it keeps itself is compared in a fiftieth of that.
        kept = getattr(os.environ, "_data", None)
        if kept is None:  # of another Python, or it was exchanged for another mapping
            return hand_down(os.environ)
        if kept != self._seen:
            self._seen = seen = dict(kept)  # at one stroke: a hook in a thread may be changing it
            decoded = {os.fsdecode(name): os.fsdecode(value) for name, value in seen.items()}
            self._variables = MappingProxyType(hand_down(decoded))
        return self._variables
