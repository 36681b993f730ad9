"""Errors carry facts, say them in a sentence, and can be pickled."""

from __future__ import annotations

import pickle

import pytest

from runtime._problems import Problem, ProblemsError
from runtime.process import (
    HookError,
    NotReadyError,
    NotRunningError,
    ProcessError,
    ProcessExitedError,
    RunLimitError,
    SpawnError,
    SurvivorsError,
)
from runtime.process._exceptions import exit_in_words, processes_in_words


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with 0"),
        (7, "exited with 7"),
        (-9, "killed by SIGKILL"),
        (-15, "killed by SIGTERM"),
        (-40, "killed by signal 40"),
    ],
)
def test_an_end_in_words(returncode: int, words: str) -> None:
    assert exit_in_words(returncode) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SpawnError("p", "/bin/x", "No such file"), "cannot start /bin/x: No such file"),
        (ProcessExitedError("p", 7, 1.26, ready=True), "exited with 7 after 1.3 s"),
        (
            ProcessExitedError("p", -9, 0.0, ready=False),
            "killed by SIGKILL before it was ready after 0.0 s",
        ),
        (
            NotReadyError("p", "tcp", 5.0, "ready_timeout_sec"),
            "not ready within 5 s by its tcp check (the limit is ready_timeout_sec)",
        ),
        (
            ProcessExitedError("p", 1, 0.3, ready=False, obstacle="port 80 is held by pid 7"),
            "exited with 1 before it was ready after 0.3 s: port 80 is held by pid 7",
        ),
        (
            NotReadyError("p", "tcp", 5.0, "a_setting", "port 80 is held by 7"),
            "not ready within 5 s by its tcp check (the limit is a_setting): port 80 is held by 7",
        ),
        (
            NotReadyError("p", "mine", 5.0, "ready_timeout_sec", "no", gave_up=True),
            "its mine check has given up on it: no",
        ),
        (
            RunLimitError("p", 60.0, "a_setting"),
            "ran longer than 60 s (the limit is a_setting)",
        ),
        (
            HookError("p", "announce", "pre_start", "ValueError: no"),
            "hook announce (pre_start) failed: ValueError: no",
        ),
        (NotRunningError("p"), "p does not run; start it first"),
        (
            SurvivorsError("p", [3, 4], ["sh"]),
            "pid 3 (sh), pid 4 outlived SIGKILL; it is not started again while that is there",
        ),
    ],
)
def test_errors_say_what_is_wrong_and_survive_a_pickle(error: ProcessError, words: str) -> None:
    assert str(error) == words
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(copy), copy.__dict__, str(copy)) == (type(error), error.__dict__, words)
    assert copy.name == "p"


def test_problems_are_told_with_their_places() -> None:
    error = ProblemsError([Problem(("processes", 0, "path"), "is missing"), Problem(("x",), "no")])
    assert isinstance(error, ValueError)
    assert str(error) == "processes.0.path: is missing; x: no"
    assert len(error.problems) == 2


def test_of_many_processes_some_are_named_and_the_others_counted() -> None:
    asked: list[int] = []

    def find_name(pid: int) -> str:
        asked.append(pid)
        return "sh"

    words = processes_in_words(range(1, 501), find_name)
    assert words.startswith("pid 1 (sh), pid 2 (sh), ")
    assert words.endswith("pid 20 (sh) and 480 more")
    assert asked == list(range(1, 21))
    assert processes_in_words([7], lambda _: None) == "pid 7"
    assert SurvivorsError("p", [7, 8], ["sh"]).survivors == "pid 7 (sh), pid 8"
