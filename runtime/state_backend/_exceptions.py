"""What can be wrong with a store.

StateBackendError
├── NotOpenError              it was used outside its block, or cannot give what is asked for
├── UnknownStateBackendError  (ValueError) no store has a URL of this scheme
├── UnknownCursorError        (ValueError) no page has given this cursor
└── StoreFileError            its file cannot be used: damaged, of a later version, or not to be had
"""

from collections.abc import Iterable

from runtime._problems import did_you_mean


class StateBackendError(Exception):
    """The base of every error of this package."""


class NotOpenError(StateBackendError):
    """The store *url* was asked for what it cannot give as it stands."""

    url: str
    reason: str

    def __init__(self, url: str, reason: str = "it is used in an async with block only") -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"state backend {self.url}: {self.reason}"


class UnknownStateBackendError(StateBackendError, ValueError):
    """No state backend is known for the scheme of this URL."""

    url: str
    known: tuple[str, ...]

    def __init__(self, url: str, known: Iterable[str]) -> None:
        self.url, self.known = url, tuple(sorted(known))
        super().__init__(url, self.known)

    def __str__(self) -> str:
        scheme = self.url.partition("://")[0]
        known = ", ".join(f"{each}://" for each in self.known)
        nearest = did_you_mean(scheme, self.known)
        return f"there is no state backend for {self.url!r}{nearest} (there are: {known})"


class UnknownCursorError(StateBackendError, ValueError):
    """What was given as the place where the next page begins is none."""

    cursor: str

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"{self.cursor[:50]!r} is no cursor; take the one that the page before has given"


class StoreFileError(StateBackendError):
    """The file of a store cannot be used; *reason* says why, and what to do."""

    path: str
    reason: str

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"state backend {self.path}: {self.reason}"
