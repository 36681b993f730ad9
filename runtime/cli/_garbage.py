"""Where and how often Python looks for garbage, in a program that is the runtime's own."""

import gc
from typing import Final

# Little of a tree is garbage that refers to itself, and to look through all that there is stops
# everything for a tenth of a second: that is done ten times more seldom than usual. (Not more: a
# service of the user may make such garbage, and what has grown meanwhile has to fit.)
_THRESHOLDS: Final = (700, 20, 50)


def look_seldom() -> None:
    """Look no more through what is there now: it has been loaded, and stays."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()
