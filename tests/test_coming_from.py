"""What the page for those who come from another tool shows is right: read, compared, and run."""

from __future__ import annotations

import configparser
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jsonschema import Draft202012Validator

from runtime._schema import manifest_schema
from tests.test_docs import LIMIT_SEC, OF_OTHERS, blocks, write_files

PAGE = "docs/coming-from.md"
#: Where the manifests of the page say that the programs are.
FOLDER = "/srv/shop"
SCHEMA = manifest_schema()
#: A module with the class of a service.
SERVICE = """
from runtime import Service, ServiceConfiguration, ServiceManager

class Configuration(ServiceConfiguration):
    size: int

class Manager(ServiceManager):
    async def start(self): ...
    async def stop(self): ...

class NAME(Service):
    configuration_class = Configuration

    def create_manager(self):
        return Manager(self.logger)
"""


class Pair(NamedTuple):
    """A file of another tool and the manifest that follows it on the page."""

    language: str
    theirs: str
    ours: str


def is_theirs(language: str, file: str | None) -> bool:
    return language in ("ini", "procfile") or file in OF_OTHERS


def pairs() -> Iterator[Pair]:
    theirs: tuple[str, str] | None = None
    for block in blocks(PAGE):
        if is_theirs(block.language, block.file):
            theirs = (block.language, block.text)
        elif theirs is not None and block.language == "yaml":
            yield Pair(*theirs, block.text)
            theirs = None


PAIRS = [pytest.param(pair, id=pair.theirs.split()[0]) for pair in pairs()]
MANIFESTS = [
    block
    for block in blocks(PAGE)
    if block.language in ("yaml", "json") and not is_theirs(block.language, block.file)
]


def names_of_theirs(pair: Pair) -> list[str]:
    if pair.language == "procfile":
        return re.findall(r"^([\w-]+):", pair.theirs, re.MULTILINE)
    if pair.language == "yaml":
        data = yaml.safe_load(pair.theirs)
        return list(data.get("processes") or data["services"])
    parser = configparser.RawConfigParser(strict=True)
    parser.read_string(pair.theirs)
    found = [section.partition(":")[2] for section in parser.sections()]
    # The name of a systemd unit is that of its file.
    return found if parser.sections() != ["Service"] else ["mailer"]


def make_world(folder: Path, on_path: Path, manifest: Mapping[str, Any]) -> None:
    """Make what a manifest names and the page does not show: programs, and a service's module."""
    processes = manifest.get("processes", ())
    checks = [each.get("ready_params", {}).get("command", ["sh"]) for each in processes]
    for name in {each.get("path", "sh") for each in processes} | {check[0] for check in checks}:
        program = folder / name if "/" in name else on_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    for service in manifest.get("services", ()):
        module, _, name = service["class"].partition(":")
        path = folder / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SERVICE.replace("NAME", name))
    if "env_file" in manifest:
        (folder / manifest["env_file"]).write_text("")


def test_every_manifest_passes_the_check(tmp_path: Path) -> None:
    paths: list[str] = []
    for block in MANIFESTS:
        folder = tmp_path / f"line-{block.line}"
        folder.mkdir()
        text = block.text.replace(FOLDER, str(folder))
        path = folder / f"manifest.{block.language}"
        path.write_text(text)
        make_world(folder, tmp_path / "bin", yaml.safe_load(text))
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "check", *paths],
        check=False,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SEC,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": fine: ") == len(MANIFESTS)


@pytest.mark.parametrize("pair", PAIRS)
def test_both_files_name_the_same_programs(pair: Pair) -> None:
    ours = [process["name"] for process in yaml.safe_load(pair.ours)["processes"]]
    assert sorted(ours) == sorted(names_of_theirs(pair))


def test_there_is_a_pair_for_each_tool_whose_file_is_another() -> None:
    assert len(PAIRS) == 6
    assert len(MANIFESTS) >= len(PAIRS) + 2


# --- the tables of equivalents --------------------------------------------------------------------


def known_words() -> set[str]:
    """Return every key and every choice that a manifest has."""
    text = json.dumps(SCHEMA)
    words = {
        key for each in (SCHEMA, *SCHEMA["$defs"].values()) for key in each.get("properties", ())
    }
    for choices in re.findall(r'"enum": \[([^\]]*)\]', text):
        words |= set(re.findall(r'"(\w+)"', choices))
    return words


def equivalents() -> Iterator[str]:
    """Yield what stands as code in the middle column of each table."""
    text = (Path(__file__).parents[1] / PAGE).read_text(encoding="utf-8")
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) == 5 and not cells[2].startswith("-"):
            yield from re.findall(r"`([^`]+)`", cells[2])


FRAGMENTS = sorted({each for each in equivalents() if re.fullmatch(r"[a-z_]+: \S.*", each)})
WORDS = sorted({each for each in equivalents() if re.fullmatch(r"[a-z_]+:?", each)})
#: What a hook gets of a process.
OF_PYTHON = {"pid", "returncode", "poll", "wait"}


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_setting_in_a_table_is_one_that_an_entry_may_have(fragment: str) -> None:
    setting = yaml.safe_load(fragment.replace("…", '"${ANY}"'))
    owners = [
        each
        for each in (SCHEMA, SCHEMA["$defs"]["Process"], SCHEMA["$defs"]["Dependency"])
        if setting.keys() <= each["properties"].keys()
    ]
    assert owners
    alone = {"properties": owners[0]["properties"], "$defs": SCHEMA["$defs"]}
    assert [error.message for error in Draft202012Validator(alone).iter_errors(setting)] == []


def test_a_word_in_a_table_is_one_that_a_manifest_knows() -> None:
    unknown = {word.removesuffix(":") for word in WORDS} - known_words() - OF_PYTHON
    assert unknown == set()
    assert len(FRAGMENTS) > 15
    assert len(WORDS) > 15


# --- the Procfile ---------------------------------------------------------------------------------


def test_the_manifest_for_a_procfile_runs_as_the_page_tells(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    write_files(PAGE, tmp_path, free_port)
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "runtime", "manifest.yaml"],
        cwd=tmp_path,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            while not any("good morning 200" in line for line in lines):
                line = program.stdout.readline()
                assert line, f"it has ended: {lines}"
                lines.append(line)
            program.send_signal(signal.SIGINT)
            lines += program.stdout.read().splitlines()
            assert program.wait(LIMIT_SEC) == 0
        finally:
            program.kill()
    text = "\n".join(lines)
    assert text.index("web is ready") < text.index("good morning 200")
    assert "stopped: worker, web" in text
