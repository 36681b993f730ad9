"""A check is bound to parameters that are right, once; and it is looked at ever less often."""

from __future__ import annotations

import socket
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtime._problems import Problem, ProblemsError
from runtime.process import NotReadyError, Process
from runtime.process.host import Host
from runtime.process.readiness import STRATEGIES, Candidate, bind
from runtime.process.readiness._candidate import until


def problems_of(name: str, **params: object) -> list[Problem]:
    with pytest.raises(ProblemsError) as caught:
        bind(name, params, Path("/base"))
    return caught.value.problems


# --- binding --------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_base(tmp_path: Path) -> None:
    (tmp_path / "check").write_text("#!/bin/sh\n")
    (tmp_path / "check").chmod(0o755)
    for name, params, resolved in [
        ("file", {"path": "ready"}, {"path": f"{tmp_path}/ready"}),
        ("pipe", {"path": "/run/ready"}, {}),
        ("tcp", {"unix": "s"}, {"unix": f"{tmp_path}/s"}),
        ("tcp", {"port": "80"}, {}),
        ("http", {"url": "http://a", "unix": "s"}, {"unix": f"{tmp_path}/s"}),
        ("http", {"url": "http://a"}, {}),
        ("exec", {"command": ["./check", "-q"]}, {"command": [f"{tmp_path}/check", "-q"]}),
        ("log", {"pattern": "x"}, {}),
    ]:
        check = bind(name, params, tmp_path)
        assert check.resolved == resolved
        assert bind(name, {**params, **resolved}, Path("/else")).params == check.params
        assert check.can_probe == (name not in {"pipe", "log"})


def test_a_bare_name_is_looked_up_on_the_path_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "check-it").write_text("#!/bin/sh\n")
    (tmp_path / "check-it").chmod(0o755)
    params = {"command": ["check-it"]}
    check = bind("exec", params, Path("/"), search=str(tmp_path))
    assert check.resolved == {"command": [str(tmp_path / "check-it")]}
    process = Process(
        name="p", path="sh", env={"PATH": str(tmp_path)}, ready_strategy="exec", ready_params=params
    )
    assert process.check is process.check  # made at most once
    assert process.ready_params == {"command": [str(tmp_path / "check-it")]}


def test_a_problem_has_its_place_in_the_parameters() -> None:
    assert problems_of("tcp", prot=80) == [Problem(("prot",), "unknown key; did you mean 'port'?")]
    assert problems_of("file") == [
        Problem(("path",), "is missing; the file strategy needs it"),
    ]
    assert [where for where, _ in problems_of("http", url=5, status=["x"], z=1)] == [
        ("url",),
        ("status", 0),
        ("z",),
    ]
    assert problems_of("htpp") == [Problem((), "there is no check 'htpp'; did you mean 'http'?")]
    with pytest.raises(ProblemsError, match="there is no check 'custom'"):
        _ = Process(name="p", path="sh", ready_strategy="custom").check


def test_each_parameter_is_described() -> None:
    for strategy in STRATEGIES.values():
        for field in strategy.params.model_fields.values():
            assert field.description is not None
        with pytest.raises(ValueError, match="frozen"):
            strategy.params.model_construct().path = 1  # type: ignore[attr-defined]


# --- looking --------------------------------------------------------------------------------------


async def looks_at(took: list[float], cap_sec: float) -> list[float]:
    """Return when each look began, where they take so long."""
    began: list[float] = []

    async def look() -> bool:
        began.append(trio.current_time())
        await trio.sleep(took[len(began) - 1])
        return len(began) == len(took)

    await until(look, cap_sec)
    return began


async def test_the_interval_grows_to_its_cap(autojump_clock: MockClock) -> None:
    began = await looks_at([0.0] * 30, 0.1)
    pauses = [b - a for a, b in pairwise(began)]
    assert pauses[:4] == pytest.approx([0.001, 0.0015, 0.00225, 0.003375])
    assert pauses[-1] == pytest.approx(0.1)
    assert pauses == sorted(pauses)


async def test_a_look_that_takes_long_is_followed_by_a_pause_as_long(
    autojump_clock: MockClock,
) -> None:
    began = await looks_at([3.0, 0.0, 4.0, 0.5, 0.0], 0.1)
    assert [b - a for a, b in pairwise(began)] == pytest.approx([6.0, 0.0015, 8.0, 1.0])


async def test_the_cap_may_be_shorter_than_the_first_interval(autojump_clock: MockClock) -> None:
    assert await looks_at([0.0] * 3, 0.0) == pytest.approx([autojump_clock.current_time()] * 3)


# --- unix sockets ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("fds_kept")
async def test_a_unix_socket_is_ready_when_somebody_listens(tmp_path: Path) -> None:
    check, candidate = bind("tcp", {"unix": "s"}, tmp_path), Candidate()
    assert not await check.probe(Host(), candidate)
    assert candidate.obstacle == f"{tmp_path}/s accepts no connection (No such file or directory)"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        assert await check.probe(Host(), candidate)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(tmp_path / "s"))
        assert not await check.probe(Host(), candidate)
        assert candidate.obstacle.endswith("(its queue is full)")
        for client in clients:
            client.close()
    assert not await check.probe(Host(), candidate)  # the file is stale
    assert candidate.obstacle.endswith("(Connection refused)")


async def test_a_process_is_ready_by_its_unix_socket(make_pilot: Any, py: Any) -> None:
    code = """
import socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("api.sock")
time.sleep(0.1)
listener.listen()
time.sleep(60)
"""
    fields = {"ready_strategy": "tcp", "ready_params": {"unix": "api.sock"}}
    definition = py(code, working_directory=".", ready_timeout_sec=20, **fields)
    async with make_pilot(definition) as pilot:
        assert pilot.supervisor.status("p").ready


# --- who gives up ---------------------------------------------------------------------------------


def test_giving_up_is_a_fact_of_the_error() -> None:
    error = NotReadyError("p", "mine", 5.0, "ready_timeout_sec", "no", gave_up=True)
    assert (str(error), error.gave_up) == ("its mine check has given up on it: no", True)


async def test_two_may_look_at_the_same_time(tmp_path: Path) -> None:
    check, candidate = bind("file", {"path": "x"}, tmp_path), Candidate()
    host = replace(Host(), check_interval_sec=0.01)
    answers: list[bool] = []

    async def look() -> None:
        answers.append(await check.probe(host, candidate))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(look)
    assert answers == [False] * 10
