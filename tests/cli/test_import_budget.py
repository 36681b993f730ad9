"""What a child has to wait for is imported before it is spawned, and nothing else."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Site

#: Coverage would be among what is imported.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None}

#: Runs the program, and notes what is imported when it forks its guard and its first child.
NOTE_MODULES = """
import sys
before = set(sys.modules)
def note(event, arguments):
    # To be imported, Trio may run something too: ldconfig, with which ctypes looks for a library.
    if event == "os.fork" or event == "subprocess.Popen" and arguments[0].endswith("/sh"):
        with open(event, "x") as file:
            print(*set(sys.modules) - before, file=file)
sys.addaudithook(note)
import runpy
runpy.run_module("runtime", run_name="__main__", alter_sys=True)
"""

#: Who needs one of these needs it later, or never. (pathlib has urllib.parse, and pydantic, which
#: looks for its plugins among all distributions, importlib.metadata and with that email.)
FORBIDDEN = {
    *("rich", "psutil", "quart", "quart_trio", "hypercorn", "h11", "h2", "wsproto", "runtime_http"),
    *("asyncio", "concurrent", "multiprocessing", "sqlite3", "http", "urllib.request", "xml"),
    *(
        "logging.config",
        "socketserver",
        "pickle",
        "html",
        "unittest",
        "doctest",
        "pdb",
        "tomllib",
        "readline",
        "curses",
        "tkinter",
    ),
}

BEFORE_THE_GUARD = {"click"}

BEFORE_THE_FIRST_SPAWN = BEFORE_THE_GUARD | {
    *("trio", "attr", "attrs", "outcome", "sniffio", "sortedcontainers", "idna"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
    "yaml",
}

#: What is imported by every Python here is setuptools' and no doing of ours.
OURS = {"runtime", "runtime_http", "_distutils_hack"}


def foreign(modules: set[str]) -> set[str]:
    """Return the packages among *modules* that others have written: of the distributions here."""
    return {name.partition(".")[0] for name in modules} & packages_distributions().keys() - OURS


def forbidden(modules: set[str]) -> set[str]:
    return {name for name in modules if name in FORBIDDEN or name.partition(".")[0] in FORBIDDEN}


def test_what_is_imported_before_the_guard_and_before_the_first_child(site: Site) -> None:
    site.add("a", "exit 0")
    del site.settings["http"]
    program = site.start(python=("-c", NOTE_MODULES), env=UNMEASURED)
    assert program.wait() == 0, program.err.text
    at_fork, at_spawn = (
        set((site.folder / event).read_text().split()) for event in ("os.fork", "subprocess.Popen")
    )
    assert foreign(at_fork) == BEFORE_THE_GUARD
    assert foreign(at_spawn) == BEFORE_THE_FIRST_SPAWN
    assert forbidden(at_spawn) == set()
    assert {"trio", "pydantic", "runtime.cli._run", "asyncio"} & at_fork == set()


def test_the_guard_carries_nothing_of_what_the_runtime_needs(site: Site) -> None:
    site.add("a", "SAY; exec sleep 1000")
    del site.settings["http"]
    program = site.start(env=UNMEASURED)
    site.hear_everyone()
    guard, runtime = (
        set(re.findall(r"/(\w+)\.[^/]*so\n", Path(f"/proc/{pid}/maps").read_text()))
        for pid in (program.pid, site.runtime_pid)
    )
    assert {"_pydantic_core", "_yaml"} <= runtime
    assert {"_pydantic_core", "_yaml", "_ssl", "_json"} & guard == set()
    program.send(signal.SIGTERM)
    assert program.wait() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in ("run", "check", "graph", "schema", "status")),
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_a_question_is_answered_without_loading_the_runtime(
    site: Site, arguments: list[str]
) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "runtime", *arguments]
    env = site.environment(UNMEASURED)
    answer = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    imported = set(re.findall(r"\| +(\S+)\n", answer.stderr))
    assert foreign(imported) == BEFORE_THE_GUARD
    assert "runtime.cli._main" in imported
    assert forbidden(imported) == set()


def test_a_running_tree_is_asked_without_what_serves_it(site: Site) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "runtime", "status", "--url", "unix:/none"]
    answer = subprocess.run(
        argv, env=site.environment(UNMEASURED), check=False, capture_output=True, text=True
    )
    assert answer.returncode == 3
    imported = {name.partition(".")[0] for name in re.findall(r"\| +(\S+)\n", answer.stderr)}
    assert {"httpx", "runtime_http"} <= imported
    assert {"quart", "quart_trio", "quart_schema", "hypercorn", "psutil"} & imported == set()
