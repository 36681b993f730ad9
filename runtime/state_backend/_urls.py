"""Which store a URL means."""

from __future__ import annotations

from importlib.metadata import entry_points

from runtime.invocation.models import AppInfo

from ._exceptions import UnknownStateBackendError
from .base import BaseStateBackend

#: Distributions add stores of their own here: the name is the scheme, the value a class.
ENTRY_POINTS = "trio_runtime.state_backends"


def _built_in(scheme: str) -> type[BaseStateBackend] | None:
    # Each brings libraries that only its users need.
    if scheme == "memory":
        from .memory import MemoryStateBackend  # noqa: PLC0415 - as above

        return MemoryStateBackend
    if scheme == "sqlite":
        from .sqlite import SQLiteStateBackend  # noqa: PLC0415 - as above

        return SQLiteStateBackend
    return None


def make_state_backend(url: str, app: AppInfo | None = None) -> BaseStateBackend:
    """Return the store that *url* means, to be opened by ``async with``.

    ``memory://``, ``sqlite:///PATH`` (relative) and ``sqlite:////PATH`` are built in; entry points
    of the group ``trio_runtime.state_backends`` add others. Raises `UnknownStateBackendError`.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    kind = _built_in(scheme)
    if kind is None:
        found = {each.name: each for each in entry_points(group=ENTRY_POINTS)}
        if scheme not in found:
            raise UnknownStateBackendError(url, {"memory", "sqlite", *found})
        kind = found[scheme].load()
    return kind(url, app)
