"""Which store a URL means."""

from __future__ import annotations

from typing import Final

from runtime import _late
from runtime.invocation.models import AppInfo

from ._exceptions import UnknownStateBackendError
from .base import BaseStateBackend

#: Distributions add stores of their own here: the name is the scheme, the value a class.
ENTRY_POINTS: Final = "trio_runtime.state_backends"
_BUNDLED: Final = ("memory", "sqlite")


def make_state_backend(url: str, app: AppInfo | None = None) -> BaseStateBackend:
    """Return the store that *url* means, to be opened by ``async with``.

    ``memory://``, ``sqlite:///PATH`` (relative) and ``sqlite:////PATH`` are built in; entry points
    of the group ``trio_runtime.state_backends`` add others. Raises `UnknownStateBackendError`.
    """
    scheme, found, _ = url.partition("://")
    if not found:
        raise UnknownStateBackendError(url, _BUNDLED)
    if scheme in _BUNDLED:
        bundled: type[BaseStateBackend] = _late.state_backend(scheme)
        return bundled(url, app)
    others = {each.name: each for each in _late.entry_points(ENTRY_POINTS)}
    if scheme not in others:
        raise UnknownStateBackendError(url, {*_BUNDLED, *others})
    kind: type[BaseStateBackend] = others[scheme].load()
    return kind(url, app)
