"""Plugins of installed distributions are found when a manifest needs them, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import _late
from runtime._plugin_registry import check_plugins
from runtime._problems import Problem
from runtime.pilot import ProcessPilot
from runtime.process import ProcessManifest
from runtime.supervision.graph import Stage

MODULE = """
from runtime.plugin import Plugin

LOADED = []

class Server:
    def __init__(self, pilot): ...
    async def start(self): ...
    async def stop(self): ...

class Offered(Plugin):
    def get_lifecycle_hooks(self):
        return {"offered": {"pre_start": [lambda process, popen: LOADED.append(process.name)]}}
    def get_ready_strategies(self):
        return {"offered": lambda process, interval: True, "tcp": lambda process, interval: 1 / 0}
    def get_stats_handlers(self):
        return {"offered": [print]}
    def get_control_servers(self):
        return {"offered": Server, "tcp": print}

class Wants(Plugin):
    def __init__(self, more): ...

class Fails(Plugin):
    def get_lifecycle_hooks(self):
        return 1 / 0

no_plugin = 5
"""


def make_wheel(folder: Path, entries: dict[str, str], name: str = "shop_plugins") -> Path:
    """Write a wheel as a build tool does; *entries* are its entry points."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    points = "".join(f"{key} = {value}\n" for key, value in entries.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", MODULE)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/entry_points.txt", f"[trio_runtime.plugins]\n{points}")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install a distribution with these entry points where Python finds it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    def install_wheel(**entries: str) -> None:
        with zipfile.ZipFile(make_wheel(tmp_path, entries)) as archive:
            archive.extractall(site)

    yield install_wheel
    sys.modules.pop("shop_plugins", None)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each search."""
    found, search = [], _late.entry_points  # type: tuple[list[str], Any]

    def note(group: str) -> Any:
        found.append(group)
        return search(group)

    monkeypatch.setattr(_late, "entry_points", note)
    return found


def manifest(tmp_path: Path, *processes: dict[str, Any], **fields: object) -> ProcessManifest:
    data = {"base_directory": tmp_path, "processes": list(processes), **fields}
    return ProcessManifest.model_validate(data)


async def test_what_a_distribution_offers_is_used_by_its_names(
    install: Any, sh: Any, make_pilot: Any, tmp_path: Path
) -> None:
    install(shop="shop_plugins:Offered")
    names: dict[str, Any] = {
        "lifecycle_hooks": ["offered"],
        "stat_handlers": ["offered"],
        "ready_strategy": "offered",
    }
    process = sh("exec sleep 60", **names)
    assert check_plugins(manifest(tmp_path, process, control_server="offered")) == []
    pilot: ProcessPilot = make_pilot(process, control_server="offered")
    async with pilot:
        assert pilot.supervisor.status("p").stage is Stage.READY
        assert pilot.supervisor.status("offered").stage is Stage.READY
    assert sys.modules["shop_plugins"].LOADED == ["p"]


async def test_nobody_looks_for_it_who_needs_it_not(
    install: Any, sh: Any, tmp_path: Path, looks: list[str]
) -> None:
    install(shop="shop_plugins:Offered")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "own.py").write_text(
        "from runtime import Plugin\n"
        "class Own(Plugin):\n"
        "    def get_lifecycle_hooks(self): return {'own': {}}\n"
    )
    own = sh(
        "exec sleep 60", lifecycle_hooks=["own"], ready_strategy="tcp", ready_params={"port": 1}
    )
    fields = {"plugins": "plugins", "control_server": "tcp"}
    assert check_plugins(manifest(tmp_path, own, **fields)) == []
    assert (looks, "shop_plugins" in sys.modules) == ([], False)
    other = manifest(
        tmp_path, own, sh("exec sleep 60", name="q", lifecycle_hooks=["offered"]), **fields
    )
    pilot = ProcessPilot(other)
    problems = pilot.unknown_names()
    assert (problems, looks) == ([], ["trio_runtime.plugins"])
    assert pilot.unknown_names() == []
    assert looks == ["trio_runtime.plugins"]  # once is enough


async def test_what_is_built_in_stays_what_it_is(install: Any, sh: Any, tmp_path: Path) -> None:
    install(shop="shop_plugins:Offered")
    process = sh("x", lifecycle_hooks=["offered"], ready_strategy="tcp", ready_params={"port": 1})
    pilot = ProcessPilot(
        manifest(tmp_path, process, control_server="tcp", control_params={"bind": "unix:s"})
    )
    built_in = pilot.manifest.processes[0].ready_strategy_function
    pilot.check_names()
    assert pilot.manifest.processes[0].ready_strategy_function is built_in
    assert pilot._plugins.control_server("tcp").__name__ == "TCPControlServer"  # type: ignore[attr-defined]


def test_what_is_broken_is_named_and_hides_no_other(install: Any, sh: Any, tmp_path: Path) -> None:
    install(
        absent="shop_plugins:absent",
        fails="shop_plugins:Fails",
        good="shop_plugins:Offered",
        missing="no_such_module_anywhere:Plugin",
        wants="shop_plugins:Wants",
        wrong="shop_plugins:no_plugin",
    )
    fine = sh("x", lifecycle_hooks=["offered"])
    assert check_plugins(manifest(tmp_path, fine)) == []
    problems = check_plugins(manifest(tmp_path, sh("x", lifecycle_hooks=["ofered"])))
    who = "the distribution shop_plugins offers a plugin"
    assert problems[0] == Problem(
        ("processes", "p", "lifecycle_hooks", 0),
        "no plugin provides 'ofered'; did you mean 'offered'?",
    )
    assert {where for where, _ in problems[1:]} == {("plugins",)}
    told = sorted(words for _, words in problems[1:])
    assert told[0].startswith("get_lifecycle_hooks of the plugin Fails raised ZeroDivisionError")
    assert told[1].startswith(f"{who} 'absent' that cannot be loaded: AttributeError: ")
    assert told[2].startswith(f"{who} 'missing' that cannot be loaded: ModuleNotFoundError: ")
    assert told[3].startswith(f"{who} 'wants' that cannot be made: TypeError: ")
    assert told[4] == f"{who} 'wrong' that is no class derived from Plugin"


@pytest.mark.slow
def test_a_distribution_that_pip_has_installed_is_found(tmp_path: Path) -> None:
    wheel, site = make_wheel(tmp_path, {"shop": "shop_plugins:Offered"}), tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run([*pip, "--target", site, wheel], check=True, env=quiet, timeout=60)
    path = tmp_path / "manifest.yaml"
    path.write_text("processes: [{name: a, path: sh, lifecycle_hooks: [offered, ofered]}]\n")
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "check", path],
        check=False,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == (
        f"{path}:1: processes.a.lifecycle_hooks.1:"
        " no plugin provides 'ofered'; did you mean 'offered'?\n"
    )
    assert done.returncode == 2
