"""Modules of the user's, which a manifest names."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_user_module(name: str, folder: Path) -> ModuleType:
    """Return the module *name*, which may be in *folder*; raise `ValueError` saying what is wrong.

    *folder* becomes importable, behind the rest: a file of the user's hides nothing.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script may well end the program
        words = f"{type(error).__name__}: {error}"
        raise ValueError(f"module {name!r} cannot be imported: {words}") from error
