"""Finds the plugins in a folder of Python files, without touching ``sys.path``."""

import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from zlib import crc32

from runtime.plugin import Plugin


class PluginFileError(ValueError):
    """A file of plugins cannot be used; *problem* says why, in words."""

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(file, problem)
        self.file, self.problem = file, problem

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"


def find_plugins(folder: Path) -> list[Plugin]:
    """Return an instance of each `Plugin` class that a file in *folder* defines, by file name.

    One that is abstract is a base of others, and is left out. A file is imported once, however
    often it is asked for; what it does to end the program is an error like any other. Raises
    `PluginFileError`, and `ValueError` when there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no plugin folder {folder}")
    found: list[Plugin] = []
    for file in sorted(folder.resolve().glob("*.py")):
        module = _import(file)
        classes = dict.fromkeys(each for _, each in inspect.getmembers(module, inspect.isclass))
        found += [
            _make(file, each)
            for each in classes
            if issubclass(each, Plugin)
            and each.__module__ == module.__name__
            and not inspect.isabstract(each)
        ]
    return found


def _make(file: Path, plugin: type[Plugin]) -> Plugin:
    try:
        return plugin()
    except (Exception, SystemExit) as error:
        problem = f"has a plugin {plugin.__name__} that cannot be made: {_in_words(error)}"
        raise PluginFileError(file, problem) from error


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _import(file: Path) -> ModuleType:
    name = f"runtime_plugin_{file.stem}_{crc32(os.fsencode(file)):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise AssertionError(file)  # what ends in .py has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # half of a module is of use to nobody
        if isinstance(error, Exception | SystemExit):
            raise PluginFileError(file, f"cannot be imported: {_in_words(error)}") from error
        raise
    return module
