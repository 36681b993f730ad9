"""Plugins are found in a folder of Python files, in the order of their names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime._plugin_files import PluginFileError, find_plugins

TWO = """
from abc import ABC, abstractmethod
from dataclasses import dataclass
from runtime.plugin import Plugin

class Abstract(Plugin, ABC):
    @abstractmethod
    def publish(self): ...

class Base(Plugin):
    pass

class Derived(Base):
    pass

@dataclass
class NoPlugin:
    x: "int" = 1
"""
IMPORTS = "from runtime import Plugin as P, Plugin\nclass Own(P): pass\nalias = Own\n"


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the modules of the test's plugins, and keep `sys.path` an eye on."""
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_each_class_that_a_file_defines_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(IMPORTS)
    (tmp_path / "a.py").write_text(TWO)
    (tmp_path / "notes.txt").write_text("no Python")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.py").write_text(IMPORTS)
    assert [plugin.name for plugin in find_plugins(tmp_path)] == ["Base", "Derived", "Own"]


def test_an_empty_folder_has_no_plugins_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert find_plugins(tmp_path) == []
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match=re.escape(f"there is no plugin folder {missing}")):
        find_plugins(missing)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="there is no plugin folder"):
        find_plugins(tmp_path / "file")


def test_files_of_the_same_name_in_two_folders_are_two_plugins(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        text = f"from runtime import Plugin\nclass P(Plugin):\n    name = {folder!r}\n"
        (tmp_path / folder / "same.py").write_text(text)
    found = [
        plugin.name for folder in ("one", "other") for plugin in find_plugins(tmp_path / folder)
    ]
    assert found == ["one", "other"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError),
        ("def broken(:", SyntaxError),
        ("1 / 0", ZeroDivisionError),
        ("raise SystemExit(3)", SystemExit),
    ],
)
def test_what_a_file_raises_is_told_and_no_half_made_module_stays(
    tmp_path: Path, text: str, error: type[BaseException]
) -> None:
    file = tmp_path / "broken_plugin.py"
    file.write_text(text)
    with pytest.raises(PluginFileError, match=f"cannot be imported: {error.__name__}: ") as caught:
        find_plugins(tmp_path)
    assert caught.value.file == file
    assert isinstance(caught.value.__cause__, error)
    assert not [name for name in sys.modules if "broken_plugin" in name]


def test_what_is_no_error_travels_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        find_plugins(tmp_path)


def test_a_plugin_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        f"{IMPORTS}class Wants(Plugin):\n    def __init__(self, x): ...\n"
    )
    with pytest.raises(
        PluginFileError, match=r"a\.py has a plugin Wants that cannot be made: TypeError"
    ):
        find_plugins(tmp_path)


def test_a_file_is_imported_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    text = (
        f"{IMPORTS}import pathlib\nwith open({str(tmp_path / 'log')!r}, 'a') as f: f.write('x')\n"
    )
    (tmp_path / "own.py").write_text(text)
    one, other = find_plugins(tmp_path), find_plugins(tmp_path)
    assert type(one[0]) is type(other[0])
    assert (tmp_path / "log").read_text() == "x"
