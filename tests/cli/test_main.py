"""The commands and their options."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click import BadParameter
from click.testing import CliRunner

from runtime._http_spec import HttpSpec
from runtime.cli import main
from runtime.cli._main import cli
from runtime.cli._run import _served_at

if TYPE_CHECKING:
    from tests.cli.conftest import Site


def ask(*arguments: str) -> tuple[int, str]:
    """Run a command that runs nothing; return its exit status and what it says."""
    result = CliRunner().invoke(cli, arguments, prog_name="python -m runtime")
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_commands_and_gives_an_example(arguments: list[str]) -> None:
    status, text = ask(*arguments)
    assert status == (0 if arguments else 2)
    assert text.startswith("Usage: python -m runtime ")
    assert "Examples: python -m runtime manifest.yaml" in text
    assert "exit status" in text
    assert re.search(r"Commands: (.* )?run ", text)


def test_what_is_nearly_a_command_and_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, text = ask("statsu")
    assert status == 2
    assert "there is no command and no file 'statsu'; did you mean 'status'?" in text


@pytest.mark.parametrize("arguments", [["run"], ["run", "--help"], ["run", "-h"]])
def test_the_help_of_run_tells_exit_statuses_and_gives_examples(arguments: list[str]) -> None:
    status, text = ask(*arguments)
    assert status == (0 if arguments[1:] else 2)
    assert "Examples: python -m runtime manifest.yaml python -m runtime run --keep " in text
    assert "The exit status is 0 when it was asked to stop" in text
    assert "128 + n for signal n" in text
    for option in ("--keep", "--run-directory", "--no-guard"):
        assert option in text


@pytest.mark.parametrize(
    ("command", "example", "exit_status"),
    [
        ("check", "check manifest.yaml", "The exit status is 0 when all are right, else 2"),
        ("graph", "graph manifest.yaml --output graph.svg", "2 when the manifest is wrong, and 1"),
        ("schema", "schema --output manifest.schema.json", "and 1 when FILE cannot be written"),
        ("status", "status --watch", "3 when no tree answers"),
        *((verb, f"{verb} api", "4 for an unknown name") for verb in ("start", "stop", "restart")),
        ("logs", "logs api", "4 for a name that no process has"),
        ("events", "events --after 0 --json", "130 after Ctrl-C"),
    ],
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_of_a_tool_gives_examples_and_its_exit_status(
    command: str, example: str, exit_status: str, option: str
) -> None:
    status, text = ask(command, option)
    assert status == 0
    assert f"python -m runtime {example}" in text.partition("Examples: ")[2]
    assert exit_status in text


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("check", ()),
        ("check", ("--keep", "m.yaml")),
        ("graph", ()),
        ("graph", ("m.yaml", "b.yaml")),
        ("graph", ("m.yaml", "--format", "jpeg")),
        ("graph", ("m.yaml", "--output", "g.x")),
        ("graph", ("m.yaml", "--output", os.curdir)),
        ("schema", ("m.yaml",)),
        ("schema", ("--outptu", "x")),
        ("run", ("--http", "127.0.0.1:1", "--no-http", "m.yaml")),
        *((verb, ()) for verb in ("start", "stop", "restart", "why")),
        ("status", ("--wathc",)),
        ("logs", ("--lines", "many")),
        ("logs", ("--stream", "stdin")),
        ("events", ("--after", "-1")),
        ("events", ("api",)),
        ("completion", ("tcsh",)),
    ],
)
def test_a_wrong_use_is_told_with_the_usage(command: str, arguments: tuple[str, ...]) -> None:
    status, text = ask(command, *arguments)
    assert status == 2
    assert text.startswith(f"Usage: python -m runtime {command} [OPTIONS]")


def test_a_file_that_is_named_like_a_command_needs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("check").write_text("processes: [{name: a, path: sh, tiemout: 1}]")
    answers = [
        subprocess.run(
            [sys.executable, "-m", "runtime", *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        for arguments in (["run", "check"], ["./check"])
    ]
    assert [answer.returncode for answer in answers] == [2, 2]
    for answer in answers:
        assert answer.stderr.startswith("check:1: processes.a.tiemout: unknown key")


def test_a_file_that_is_named_like_a_command_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("check").touch()
    Path("schema").mkdir()
    status, text = ask("check", "m.yaml")
    assert status == 2
    assert "check is taken for the command; the file: python -m runtime run check" in text
    assert "is taken for" not in ask("schema")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_program(shell: str) -> None:
    status, text = ask("completion", shell)
    assert status == 0
    assert "trio-runtime" in text
    assert f"_TRIO_RUNTIME_COMPLETE={shell}_complete" in text


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("8410", "'8410' must be HOST:PORT, or unix:PATH"),
        ("localhost:x", "'localhost:x' has no port from 0 to 65535"),
        (f"unix:{'x' * 200}", "is too long for a socket"),
    ],
)
def test_an_address_that_is_none_is_wrong_usage(address: str, problem: str) -> None:
    with pytest.raises(BadParameter) as wrong:
        _served_at(address, None)
    assert "Invalid value for '--http'" in wrong.value.format_message()
    assert problem in wrong.value.format_message()


def test_a_relative_socket_on_the_command_line_starts_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _served_at("unix:run/sock", None).bind == f"unix:{tmp_path}/run/sock"
    said = HttpSpec(bind="unix:there", hosts=("shop.example",), token_file=Path("kept"))
    assert _served_at("[::1]:0", said) == said.model_copy(update={"bind": "[::1]:0"})


def test_the_version_is_the_distributions() -> None:
    assert ask("--version") == (0, f"trio-runtime, version {version('trio-runtime')}")


def test_an_unknown_option_is_named() -> None:
    status, text = ask("--kep", "manifest.yaml")
    assert status == 2
    assert "'--kep'" in text
    assert "'--keep'" in text


def test_it_is_a_module_and_a_program() -> None:
    asked = [
        subprocess.check_output([*command, "--help"], text=True)
        for command in ([sys.executable, "-m", "runtime"], [sys.executable, "-c", PROGRAM])
    ]
    assert asked[0].startswith("Usage: python -m runtime [OPTIONS]")
    assert asked[1].startswith("Usage: trio-runtime [OPTIONS]")


#: What pip makes of the console script.
PROGRAM = "import sys; from runtime.cli import main; sys.argv[0] = 'bin/trio-runtime'; main()"


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_it_says_where_it_runs(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == ("trio-runtime runs on Linux only so far (on Windows: inside WSL)")


def test_without_a_guard_nothing_is_left_at_a_stop_either(site: Site) -> None:
    site.add("plain", "SAY; exec sleep 1000")
    site.add("forks-twice", "(setsid sh -c 'SAY; exec sleep 1000' &) & SAY; exec sleep 1000")
    site.add("deaf", "trap '' TERM; SAY; exec sleep 1000", timeout=0.1)
    program = site.start("run", "--no-guard")
    site.hear_everyone()
    assert site.runtime_pid == program.pid
    assert site.read_lock()["guard_pid"] is None
    program.send(signal.SIGINT)
    assert program.wait() == 0
    assert site.find_left() == []


PAGES = ("command-line.md", "tools.md", "operations.md", "http.md")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_pages_tell_of_every_command_and_option(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = "".join((docs / page).read_text() for page in PAGES)
    assert re.search(rf"`{name}\b", text)
    for param in cli.commands[name].params:
        long = [each for each in param.opts if each.startswith("--")]
        assert all(re.search(rf"{each}\b", text) for each in long), long
