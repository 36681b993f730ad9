"""The rules of the house that no linter keeps; the floors are a contract of import-linter."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path

import grimp
import pytest

ROOT = Path(__file__).parents[1]

#: What is forked before anything else is imported, and what that is made of.
STANDARD_LIBRARY_ONLY = (
    "runtime.guard",
    "runtime.run_directory",
    "runtime._leftovers",
    "runtime._roster",
    "runtime._procfs",
)

#: The only module that may import inside a function.
LATE_IMPORTS = ROOT / "runtime" / "_late.py"

NAME_THE_FOREIGN_MODULES = """
import importlib, sys
before = set(sys.modules)  # what the interpreter's own start brought along
importlib.import_module(sys.argv[1])
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - sys.stdlib_module_names - {"runtime"}))
"""


def run_python(*arguments: str) -> str:
    """Run this Python at the root of the repository, and return what it prints."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    ).stdout.strip()


def imports_inside_functions(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for outer in ast.walk(ast.parse(path.read_bytes(), path))
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]


def test_the_folder_http_does_not_hide_the_standard_library() -> None:
    assert not (ROOT / "http" / "__init__.py").exists()
    found = run_python("-c", "import http.client, runtime_http; print(http.client.__file__)")
    assert Path(found).samefile(Path(get_path("stdlib"), "http", "client.py"))


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("runtime", "runtime_http", cache_dir=None)
    imported_by = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imported_by).prepare()  # raises a CycleError that names the circle


def test_nothing_is_imported_inside_a_function_but_in_one_place() -> None:
    ours = {*(ROOT / "runtime").rglob("*.py"), *(ROOT / "http").rglob("*.py")} - {LATE_IMPORTS}
    assert [found for path in sorted(ours) for found in imports_inside_functions(path)] == []


@pytest.mark.parametrize("module", list(filter(find_spec, STANDARD_LIBRARY_ONLY)))
def test_what_runs_before_trio_needs_the_standard_library_alone(module: str) -> None:
    assert run_python("-c", NAME_THE_FOREIGN_MODULES, module) == ""


@pytest.mark.parametrize(
    ("call", "rooms"),
    [
        pytest.param("Popen", {"runtime.process.spawn"}, id="one place spawns"),
        # spawn only undoes a start that failed half way, and what a whole tree has left is killed
        # when nothing else is there any more.
        pytest.param(
            "killpg",
            {"runtime.process.child", "runtime.process.spawn", "runtime._procfs"},
            id="one place stops",
        ),
        pytest.param("fork", {"runtime.guard"}, id="only the guard forks"),
    ],
)
def test_one_place_for_one_thing(call: str, rooms: set[str]) -> None:
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "runtime").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == call
    }
    assert found == rooms
