"""What a child must not have of the descriptors that are open here."""

import ctypes
from typing import Final

_FIRST: Final = 3  # after standard input, output and error
_LAST: Final = 2**32 - 1
_CLOEXEC: Final = 4  # CLOSE_RANGE_CLOEXEC of linux/close_range.h
# Without a release of the GIL, which would take longer than the call.
_close_range = getattr(ctypes.PyDLL(None), "close_range", None)


def close_all_on_exec() -> bool:
    """Have the exec of a child close all but the standard descriptors, also those from outside.

    Python opens all of its own so (PEP 446); what is left is what this program was started with, or
    a library in C has opened. Return False where that cannot be told (Linux before 5.11): then
    nothing has changed.
    """
    return _close_range is not None and _close_range(_FIRST, _LAST, _CLOEXEC) == 0
