"""Finds the plugins in a folder of Python files, without touching ``sys.path``."""

import importlib.util
import inspect
import sys
from pathlib import Path

from runtime.plugin import Plugin


def find_plugins(folder: Path) -> list[Plugin]:
    """Return an instance of each `Plugin` class that a file in *folder* defines, by file name.

    Raises `ValueError` when there is no such folder, and what a file raises while it is imported.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no plugin folder {folder}")
    found: list[Plugin] = []
    for file in sorted(folder.glob("*.py")):
        name = f"runtime_plugin_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise AssertionError(file)  # what ends in .py has a loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look their module up here
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]  # half of a module is of use to nobody
            raise
        classes = dict.fromkeys(each for _, each in inspect.getmembers(module, inspect.isclass))
        found += [
            each() for each in classes if issubclass(each, Plugin) and each.__module__ == name
        ]
    return found
