"""Where and how often Python looks for garbage, in a program that is the runtime's own."""

import gc
from typing import Final

# Little of a tree is garbage that refers to itself. A hundred restarts at once make thousands of
# objects that live for a moment: to look for garbage among them at each 700, as is usual, takes a
# twentieth of all time then, and finds nothing. To look through all that there is stops everything
# for a tenth of a second: that is done ten times more seldom than usual. (Not more: a service of
# the user may make such garbage, and what has grown meanwhile has to fit.)
_THRESHOLDS: Final = (10_000, 10, 7)


def look_seldom() -> None:
    """Look no more through what is there now: it has been loaded, and stays."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()
