"""Children inherit our environment as it is when they start."""

from __future__ import annotations

import os
from typing import Any

import pytest

from runtime import Plugin
from runtime.process._inherited import OURS_ALONE, Inherited


def test_a_change_is_seen_and_nothing_else_makes_a_new_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inherited = Inherited()
    monkeypatch.setenv("CHANGES", "1")
    first = inherited.get()
    assert first["CHANGES"] == "1"
    assert inherited.get() is first
    monkeypatch.setenv("CHANGES", "\udcff2")
    second = inherited.get()
    assert (first["CHANGES"], second["CHANGES"]) == ("1", "\udcff2")
    monkeypatch.delenv("CHANGES")
    assert "CHANGES" not in inherited.get()


def test_it_is_our_environment_without_what_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS_ALONE:
        monkeypatch.setenv(name, "1")
    given = {name: value for name, value in os.environ.items() if name not in OURS_ALONE}
    assert Inherited().get() == given


def test_an_environment_that_was_exchanged_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inherited = Inherited()
    inherited.get()
    monkeypatch.setattr(os, "environ", {"ONLY": "this", "NOTIFY_SOCKET": "@x"})
    assert inherited.get() == {"ONLY": "this"}


async def test_a_hook_changes_what_the_next_generation_inherits(
    make_pilot: Any, sh: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUND", "0")

    class Rounds(Plugin):
        def get_lifecycle_hooks(self) -> Any:
            return {"rounds": {"pre_start": [self.count]}}

        def count(self, process: Any, popen: Any) -> None:
            os.environ["ROUND"] = str(int(os.environ["ROUND"]) + 1)

    pilot = make_pilot(
        sh("echo round $ROUND", lifecycle_hooks=["rounds"], restart={"when": "always"})
    )
    pilot.register_plugins([Rounds()])
    async with pilot:
        process = pilot.get_process_by_name("p")
        for number in (1, 2, 3):
            assert await look.line(process.output, f"round {number}") == ""
