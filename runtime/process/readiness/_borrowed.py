"""What a thread that may hang at a disk uses, and the event loop must be able to let go of."""

import threading
from collections.abc import Callable
from typing import TypeVar, final

T = TypeVar("T")


@final
class Borrowed:
    """Something that one thread at a time uses, and whose last user ends it.

    *end* is called once: by `close`, or, where a thread is in the midst of using it, by that when
    it comes back.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        # Held for no longer than a moment: it says which of the two is the last.
        self._lock = threading.Lock()
        self._end = end
        self._busy = self._closed = False

    def use(self, function: Callable[[], T], otherwise: T) -> T:
        """Return what *function* does, called in this thread; *otherwise* once it is closed."""
        with self._lock:
            if self._closed:
                return otherwise
            self._busy = True
        try:
            return function()
        finally:
            with self._lock:
                self._busy = False
                ends = self._closed
            if ends:
                self._end()

    def close(self) -> None:
        """End it; a thread that uses it and hangs ends it when it comes back."""
        with self._lock:
            ends = not (self._closed or self._busy)
            self._closed = True
        if ends:
            self._end()
