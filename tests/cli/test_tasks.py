"""`tasks` looks into the store of a manifest, and changes it, while the tree runs or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
import trio.testing
from click.testing import CliRunner, Result

from runtime.application import Application
from runtime.cli._main import cli
from runtime.cli._tasks import _Asked, _NoStoreError, check, show_result
from runtime.manifest import load_manifest
from runtime.state_backend import make_state_backend
from runtime.supervision.graph import Stage
from runtime.tasks import TaskHome
from runtime_http.invocations import StoreInvocations

EXAMPLE = Path(__file__).parents[2] / "examples" / "tasks"
UNKNOWN = "019ac3c2-0000-7000-8000-000000000000"
Tasks = Callable[..., Result]

CODE = """
from runtime.application import Application

app = Application()

@app.task
async def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2

@app.task
async def pair() -> dict[str, object]:
    return {"a": 1, "b": ["ä"]}
"""

MANIFEST = """
tasks: {state_backend: "STORE", modules: [MODULE]}
jobs: [{name: first, task: half, arguments: {n: 8}}]
"""


@pytest.fixture
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a manifest whose module nobody else has."""
    module = f"halves_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(CODE)
    text = MANIFEST.replace("MODULE", module).replace("STORE", "sqlite:///calls.db")
    (tmp_path / "manifest.yaml").write_text(text)
    return tmp_path / "manifest.yaml"


@pytest.fixture
def tasks(path: Path) -> Tasks:
    """Return what runs a command of `tasks` on that manifest."""

    def call(command: str, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["tasks", command, "-f", str(path), *arguments])

    return call


def run(path: Path, until: Callable[[Application], Any]) -> None:
    """Run the tree of the manifest until *until* has returned."""

    async def main() -> None:
        with trio.fail_after(30):
            async with Application(load_manifest(path), keep=True) as app:
                await until(app)

    trio.run(main)


async def all_over(app: Application) -> None:
    for stored in (await app.state_backend.list_invocations()).invocations:
        await app.state_backend.wait_over(stored.invocation_id)


def listed(tasks: Tasks, *arguments: str) -> list[dict[str, Any]]:
    answer = tasks("list", "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def submit(tasks: Tasks, n: int) -> str:
    answer = tasks("submit", "half", "--arguments", json.dumps({"n": n}), "--json")
    assert answer.exit_code == 0, answer.output
    invocation_id: str = json.loads(answer.stdout)["invocation_id"]
    return invocation_id


def test_what_is_submitted_without_a_tree_is_run_by_the_next(path: Path, tasks: Tasks) -> None:
    good, bad = submit(tasks, 6), submit(tasks, 7)
    assert {each["status"] for each in listed(tasks)} == {"registered"}
    run(path, all_over)
    shown = json.loads(tasks("show", good, "--json").stdout)
    assert (shown["status"], shown["result"], shown["error"]) == ("success", 3, None)
    shown = tasks("show", bad).stdout
    assert "ValueError: 7 is odd" in shown
    assert [each["invocation_id"] for each in listed(tasks, "--status", "failed")] == [bad]
    assert len(listed(tasks, "--limit", "1")) == 1
    assert listed(tasks, "--task", "other.half") == []
    assert good in tasks("list").stdout
    lines = json.loads(tasks("history", good, "--json").stdout)
    assert [line["status"] for line in lines] == ["registered", "pending", "running", "success"]
    assert "running  by " in tasks("history", good).stdout


def test_when_and_where_it_is_run_may_be_said(tasks: Tasks) -> None:
    def shown(*options: str) -> dict[str, Any]:
        answer = tasks("submit", "half", "--arguments", '{"n": 2}', "--json", *options)
        assert answer.exit_code == 0, answer.output
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    when = ("--due-at", "2126-03-02T09:00:00+01:00", "--idempotency-key", "k")
    call = shown(*when, "--priority", "-5", "--queue", "mails")
    assert (call["priority"], call["queue"]) == (-5, "mails")
    assert call["timestamps"]["due_at"] == "2126-03-02T08:00:00Z"
    assert shown(*when)["invocation_id"] == call["invocation_id"]
    times = shown("--delay", "3600")["timestamps"]
    created, due = (datetime.fromisoformat(times[name]) for name in ("created_at", "due_at"))
    assert abs((due - created).total_seconds() - 3600) < 60
    assert len(listed(tasks)) == 2


def test_all_that_cannot_be_said_of_a_submission_is_told_at_once(path: Path, tasks: Tasks) -> None:
    times = ("--delay", "1", "--due-at", "2126-03-02T09:00:00Z")
    answer = tasks("submit", "half", *times, "--priority", "high", "--queue", "")
    assert answer.exit_code == 2
    assert [line.partition(": ")[0] for line in answer.stderr.splitlines()] == [
        *("--due-at", "--priority", "--queue")
    ]
    assert not (path.parent / "calls.db").exists()


def test_the_result_is_printed(path: Path, tasks: Tasks) -> None:
    good, bad, waits = submit(tasks, 6), submit(tasks, 7), submit(tasks, 8)
    tasks("cancel", waits)
    assert tasks("result", good).stderr == f"{good}: registered\n"
    assert tasks("result", good).exit_code == 1
    run(path, all_over)
    for wait in ([], ["--wait"]):
        answer = tasks("result", good, *wait)
        assert (answer.exit_code, answer.stdout) == (0, "3\n")
    answer = tasks("result", bad)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == f"{bad}: failed: ValueError: 7 is odd\n"
    told = json.loads(tasks("result", bad, "--json").stdout)
    assert (told["status"], told["error"]["type"]) == ("failed", "ValueError")
    assert tasks("result", waits).stderr == f"{waits}: killed\n"


def test_a_result_of_several_values_is_printed_to_be_read(path: Path, tasks: Tasks) -> None:
    pair = json.loads(tasks("submit", "pair", "--json").stdout)["invocation_id"]
    run(path, all_over)
    assert tasks("result", pair).stdout == '{\n  "a": 1,\n  "b": [\n    "ä"\n  ]\n}\n'


def test_a_list_that_nobody_reads_to_its_end_ends_quietly(path: Path, tasks: Tasks) -> None:
    submit(tasks, 6)
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "runtime", "tasks", "list", "-f", str(path)]
    try:
        done = subprocess.run(
            command, stdout=writes, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_job_is_a_call(path: Path, tasks: Tasks) -> None:
    run(path, all_over)
    (job,) = listed(tasks)
    assert (job["status"], job["arguments"]) == ("success", {"n": 8})


def test_cancel_and_retry_are_refused_where_the_status_does_not_allow_it(tasks: Tasks) -> None:
    call = submit(tasks, 2)
    assert tasks("cancel", call).stdout == f"{call}: killed\n"
    again = tasks("cancel", call)
    assert again.exit_code == 1
    assert "killed" in again.stderr
    assert json.loads(tasks("retry", call, "--json").stdout)["status"] == "rerouted"
    assert tasks("retry", call).exit_code == 1


def test_purge_forgets_what_is_over_and_nothing_else(tasks: Tasks) -> None:
    over, waiting = submit(tasks, 2), submit(tasks, 4)
    tasks("cancel", over)
    assert tasks("purge", "--over-for", "3600").stdout == "purged: 0\n"
    assert json.loads(tasks("purge", "--over-for", "0", "--json").stdout) == {"purged": 1}
    assert [each["invocation_id"] for each in listed(tasks)] == [waiting]
    assert tasks("purge").exit_code == 2


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("n", "status"), [(6, 0), (7, 1)], ids=["success", "failed"])
def test_a_wait_ends_with_the_call(
    path: Path, tasks: Tasks, as_json: list[str], n: int, status: int
) -> None:
    answers: list[Result] = []
    arguments = ("submit", "half", "--wait", "--arguments", json.dumps({"n": n}), *as_json)

    async def wait(_: Application) -> None:
        answers.append(await trio.to_thread.run_sync(lambda: tasks(*arguments)))

    run(path, wait)
    (answer,) = answers
    assert answer.exit_code == status, answer.output
    if as_json:
        told = json.loads(answer.stdout)
        assert told["result"] == (3 if status == 0 else None)
    elif status == 0:
        assert answer.stdout == "3\n"
    else:
        assert answer.stderr.endswith("failed: ValueError: 7 is odd\n")


@pytest.mark.usefixtures("autojump_clock")
@pytest.mark.parametrize(
    ("delay_sec", "told"), [(0, 1), (3600, 0)], ids=["waits for a runner", "waits for its time"]
)
async def test_a_wait_for_a_call_that_nobody_takes_is_told_once(
    capsys: pytest.CaptureFixture[str], delay_sec: float, told: int
) -> None:
    home = TaskHome()

    @home.task
    async def half(n: int) -> int:
        return n // 2

    ends: list[int] = []
    async with make_state_backend("memory://") as store, trio.open_nursery() as nursery:
        with home.using(store):
            call = await half.with_options(delay_sec=delay_sec).submit(2)
            asked = _Asked(StoreInvocations(home), "start one")

            async def wait() -> None:
                options = {"invocation_id": call.invocation_id, "wait": True, "as_json": False}
                ends.append(await show_result(asked, **options))

            nursery.start_soon(wait)
            await trio.sleep(600)  # ten times the longest wait
            said = f"{call.invocation_id}: nobody has taken it yet; start one\n" * told
            assert capsys.readouterr().err == said
            await call.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert capsys.readouterr().err == f"{call.invocation_id}: killed\n"
    assert ends == [1]


def test_check_looks_through_the_file(path: Path, tasks: Tasks) -> None:
    submit(tasks, 2)
    assert tasks("check").stdout == f"{path.parent / 'calls.db'}: all is well\n"
    assert json.loads(tasks("check", "--json").stdout) == []
    db = apsw.Connection(str(path.parent / "calls.db"))
    db.execute("UPDATE invocation SET runner_id = 'nobody'")
    db.close()
    answer = tasks("check")
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"{path.parent / 'calls.db'}: ")


async def test_only_a_file_of_sqlite_is_looked_through() -> None:
    async with make_state_backend("memory://") as store:
        with pytest.raises(_NoStoreError, match="memory://: only stores in a file of SQLite"):
            await check(store, as_json=False)


@pytest.mark.parametrize("command", ["show", "result", "history", "cancel", "retry"])
def test_an_unknown_call_is_said(tasks: Tasks, command: str) -> None:
    submit(tasks, 2)
    answer = tasks(command, UNKNOWN)
    assert answer.exit_code == 4
    assert UNKNOWN in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        pytest.param(("submit", "third"), 4, "third", id="unknown task"),
        pytest.param(("submit", "half"), 2, "n", id="missing argument"),
        pytest.param(("submit", "half", "--arguments", "{"), 2, "no JSON", id="no JSON"),
        pytest.param(("submit", "half", "--arguments", "7"), 2, "no JSON object", id="no object"),
        pytest.param(("submit", "half", "--delay", "-1"), 2, "--delay: input should be", id="past"),
        pytest.param(("submit", "half", "--delay", "nan"), 2, "--delay: input should", id="nan"),
        pytest.param(("submit", "half", "--delay", "1e9"), 2, "--delay: input should", id="late"),
        pytest.param(
            ("submit", "half", "--due-at", "2026-03-02T09:00"), 2, "a time with its zone", id="zone"
        ),
        pytest.param(
            ("submit", "half", "--priority", "1000001"), 2, "--priority: input", id="priority"
        ),
        pytest.param(("submit", "half", "--idempotency-key", ""), 2, "at least 1", id="key"),
        pytest.param(("purge", "--over-for", "nan"), 2, "--over-for", id="nan seconds"),
        pytest.param(("list", "--status", "faild"), 2, "did you mean 'failed'", id="status"),
        pytest.param(("list",), 3, "nothing was submitted", id="no file"),
    ],
)
def test_what_cannot_be_is_said(
    path: Path, tasks: Tasks, arguments: tuple[str, ...], status: int, words: str
) -> None:
    answer = tasks(*arguments)
    assert answer.exit_code == status, answer.output
    assert words in answer.stderr
    assert arguments[0] == "submit" or not (path.parent / "calls.db").exists()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        pytest.param("tasks: {modules: [MODULE]}", 3, "no tree serves HTTP from", id="memory"),
        pytest.param("processes: [{name: a, path: sh}]", 3, "there are no tasks", id="no tasks"),
        pytest.param("processes: 7", 2, "processes", id="wrong"),
    ],
)
def test_a_manifest_without_a_store_to_open_is_said(
    path: Path, tasks: Tasks, text: str, status: int, words: str
) -> None:
    (module,) = path.parent.glob("halves_*.py")
    path.write_text(text.replace("MODULE", module.stem))
    answer = tasks("list")
    assert answer.exit_code == status, answer.output
    assert words in answer.stderr


def test_the_example_does_its_job_before_its_process_starts(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.db*", "names.txt", "__py*"))
    answers: list[Result] = []

    def price() -> Result:
        options = ["-f", str(folder / "manifest.yaml"), "--wait"]
        call = ["tasks", "submit", "price", "--arguments", '{"name": "apple"}', *options]
        return CliRunner().invoke(cli, call)

    async def ask(app: Application) -> None:
        assert app.supervisor.status("prepare").stage is Stage.COMPLETED
        assert app.supervisor.status("open").stage is Stage.READY
        answers.append(await trio.to_thread.run_sync(price))

    run(folder / "manifest.yaml", ask)
    assert answers[0].stdout == "7.5\n", answers[0].output
