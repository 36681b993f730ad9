"""`check` says of a manifest what `run` would, and nothing is different afterwards."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.cli._check import check, describe
from runtime.manifest import Manifest

if TYPE_CHECKING:
    from tests.cli.conftest import Ask

ROOT = Path(__file__).parents[2]

BAD: dict[str, Any] = {"name": "bad", "timeout": -1, "dependencies": ["missing"]}

PLUGIN = """
from pathlib import Path
from runtime import Plugin

class Announcing(Plugin):
    def get_lifecycle_hooks(self):
        return {"announce": {}}
"""


def test_a_right_manifest_is_one_line(ask: Ask) -> None:
    path = ask.write({"name": "db"}, {"name": "api", "dependencies": ["db"]})
    answer = ask("check", path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"{path}: fine: 2 processes, 1 dependency\n"


@pytest.mark.parametrize(
    "manifest",
    sorted(
        [
            *(ROOT / "examples" / "quickstart").glob("manifest.*"),
            *(ROOT / "examples" / "services").glob("*.yaml"),
        ]
    ),
    ids=str,
)
def test_the_examples_are_right(ask: Ask, manifest: Path) -> None:
    answer = ask("check", manifest)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"{manifest}: fine: ")


def test_a_wrong_one_is_told_as_run_tells_it(ask: Ask) -> None:
    path = ask.write(BAD, {"name": "typo", "tiemout": 5})
    checked, ran = ask("check", path), ask("run", path)
    assert (checked.returncode, checked.stdout) == (2, "")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert checked.stderr == ran.stderr
    assert len(checked.stderr.splitlines()) == 3
    assert all(line.startswith(f"{path}:1: processes.") for line in checked.stderr.splitlines())


@pytest.mark.parametrize(
    "field", ["lifecycle_hooks", "stat_handlers", "ready_strategy", "control_server"]
)
def test_a_name_that_no_plugin_provides_is_told_as_run_tells_it(ask: Ask, field: str) -> None:
    listed = field.endswith("s")
    wanted: dict[str, Any] = {field: ["nobodys"] if listed else "nobodys"}
    in_process = field != "control_server"
    path = ask.write(
        {"name": "a", **(wanted if in_process else {})}, **({} if in_process else wanted)
    )
    checked, ran = ask("check", path), ask("run", path)
    assert (checked.returncode, ran.returncode) == (2, 2)
    assert checked.stderr == ran.stderr
    assert "no plugin provides 'nobodys'" in checked.stderr


def test_the_documents_show_what_it_says(ask: Ask) -> None:
    text = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    manifest = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    said = re.search(
        r"```text\n\$ python -m runtime check manifest.yaml\n(.*?)```", text, re.DOTALL
    )
    assert manifest is not None
    assert said is not None
    (ask.folder / "manifest.yaml").write_text(manifest[1])
    assert ask("check", "manifest.yaml").stderr == said[1]


def test_the_documents_show_what_it_says_of_a_right_one(ask: Ask) -> None:
    ask.folder = ROOT
    answer = ask("check", "examples/quickstart/manifest.yaml")
    assert answer.returncode == 0
    assert f"    {answer.stdout}" in (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")


def test_of_several_each_is_told_and_one_that_is_wrong_decides(ask: Ask) -> None:
    good, bad = ask.write({"name": "a"}, name="good.yaml"), ask.write(BAD, name="bad.yaml")
    answer = ask("check", "good.yaml", "bad.yaml", "missing.yaml", "good.yaml")
    assert answer.returncode == 2
    assert answer.stdout == 2 * f"{good.name}: fine: 1 process, no dependencies\n"
    assert {line.partition(":")[0] for line in answer.stderr.splitlines()} == {
        bad.name,
        "missing.yaml",
    }


def test_nothing_is_started_and_nothing_is_written(ask: Ask) -> None:
    (ask.folder / "plugins").mkdir()
    (ask.folder / "plugins" / "announcing.py").write_text(PLUGIN)
    path = ask.write(
        {
            "name": "a",
            "args": ["-c", "touch started"],
            "lifecycle_hooks": ["announce"],
            "working_directory": str(ask.folder),
        },
        plugins="plugins",
    )
    before = sorted(ask.folder.rglob("*"))
    answer = ask.anew("check", path, env={"PYTHONDONTWRITEBYTECODE": ""})
    assert (answer.returncode, answer.stderr) == (0, "")
    assert sorted(ask.folder.rglob("*")) == before


def test_a_file_whose_name_is_no_text_is_told_as_well(ask: Ask) -> None:
    path = Path(os.fsdecode(b"odd-\xff.yaml"))
    ask.write({"name": "a"}).rename(ask.folder / path)
    answer = ask("check", path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == "odd-\N{REPLACEMENT CHARACTER}.yaml: fine: 1 process, no dependencies\n"


def test_the_command_itself_returns_the_status(
    ask: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    good, bad = ask.write({"name": "a"}, name="good.yaml"), ask.write(BAD, name="bad.yaml")
    assert check([good]) == 0
    assert capsys.readouterr() == (f"{good}: fine: 1 process, no dependencies\n", "")
    assert check([bad, good]) == 2
    assert capsys.readouterr().out == f"{good}: fine: 1 process, no dependencies\n"


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ([[]], "1 process, no dependencies"),
        ([[], ["p0"]], "2 processes, 1 dependency"),
        ([[], ["p0"], ["p0", "p1"]], "3 processes, 3 dependencies"),
    ],
)
def test_a_manifest_is_described_by_its_numbers(needs: list[list[str]], words: str) -> None:
    processes = [
        {"name": f"p{index}", "path": "/bin/sh", "dependencies": names}
        for index, names in enumerate(needs)
    ]
    assert describe(Manifest.model_validate({"processes": processes})) == words


def test_services_are_counted(ask: Ask) -> None:
    cache = {"name": "cache", "class": "runtime.service.plain:idle", "dependencies": ["db"]}
    log = {"name": "log", "class": "runtime.service.plain:idle"}
    for services, words in (
        ([cache], "1 process, 1 service, 1 dependency"),
        ([cache, log], "1 process, 2 services, 1 dependency"),
    ):
        path = ask.write({"name": "db"}, services=services)
        answer = ask("check", path)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout == f"{path}: fine: {words}\n"


def test_services_alone_are_a_manifest(ask: Ask) -> None:
    path = ask.write(services=[{"name": "log", "class": "runtime.service.plain:idle"}])
    assert ask("check", path).stdout == f"{path}: fine: no processes, 1 service, no dependencies\n"
