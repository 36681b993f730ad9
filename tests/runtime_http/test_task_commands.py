"""The commands of `tasks` ask a running tree over HTTP, and tell what its store does."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from runtime.cli._main import cli
from runtime.manifest import load_manifest
from runtime.run_directory import HTTP_FILE, TOKEN_FILE, note_in_file, open_run_directory
from runtime_http import Client

from .conftest import TOKEN, Serve, Site

UNKNOWN = "019ac3c2-0000-7000-8000-000000000000"
CODE = """
from runtime.application import Application

app = Application()

@app.task
async def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2

@app.task
async def tell(words: str) -> dict[str, str]:
    return {"words": words}
"""


@dataclass
class Tree:
    """A tree of tasks, a client of it, and its folder with the manifest."""

    site: Site
    client: Client
    folder: Path

    async def tasks(self, command: str, *arguments: str, **env: str) -> Result:
        """Run a command of `tasks` that is told the address of the tree; it goes on meanwhile."""
        env = {"RUNTIME_TOKEN": TOKEN, **env}
        return await call(command, *arguments, "--url", self.site.address, **env)

    async def submit(self, task: str, **options: Any) -> str:
        return (await self.client.submit(task, **options)).invocation_id

    async def over(self, task: str, **arguments: Any) -> str:
        invocation_id = await self.submit(task, arguments=arguments)
        await self.client.result(invocation_id, wait_sec=60)
        return invocation_id

    async def until_waited_for(self, invocation_id: str) -> None:
        watched = self.site.application.state_backend.changes
        while invocation_id not in watched.watched:  # noqa: ASYNC110
            await trio.sleep(0.005)  # the server tells nobody of that


OpenTree = Callable[..., AbstractAsyncContextManager[Tree]]


async def call(command: str, *arguments: str, **env: str) -> Result:
    invoke = functools.partial(CliRunner().invoke, cli, ["tasks", command, *arguments], env=env)
    result = await trio.to_thread.run_sync(invoke)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Write a manifest with a module that no other one has, and return its path."""

    def write_one(name: str, **tasks: Any) -> Path:
        module = f"{name}_{abs(hash(request.node.nodeid))}"
        (tmp_path / f"{module}.py").write_text(CODE)
        manifest = {"run_directory": "run", "tasks": {"modules": [module], **tasks}}
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
        return tmp_path / f"{name}.json"

    return write_one


@pytest.fixture
def open_tree(serve: Serve, write: Callable[..., Path]) -> OpenTree:
    """Run a tree of tasks, kept in memory unless said otherwise, with a run directory."""

    @asynccontextmanager
    async def opened(**tasks: Any) -> AsyncGenerator[Tree]:
        manifest = write("manifest", **tasks)
        with open_run_directory(manifest.parent / "run") as directory:
            async with (
                serve(load_manifest(manifest)) as site,
                Client(site.address, TOKEN) as client,
            ):
                note_in_file(directory.path, HTTP_FILE, site.address)
                note_in_file(directory.path, TOKEN_FILE, TOKEN)
                yield Tree(site, client, manifest.parent)

    return opened


async def test_a_tree_tells_what_its_store_does(
    open_tree: OpenTree, write: Callable[..., Path]
) -> None:
    url = "sqlite:///calls.db"
    store = ("-f", str(write("store", state_backend=url)))  # the same file, for others
    async with open_tree(state_backend=url) as tree:
        good, bad = await tree.over("half", n=6), await tree.over("half", n=7)
        words = await tree.over("tell", words="grün, 7")
        waits = await tree.submit("half", arguments={"n": 8}, delay_sec=3600)
        (task,) = {each.name for each in await tree.client.tasks() if "half" in each.name}
        questions = [
            ("list",),
            ("list", "--status", "failed", "--status", "registered", "--task", task),
            ("list", "--limit", "2"),
            *(
                (verb, each)
                for verb in ("show", "history", "result")
                for each in (good, bad, waits)
            ),
            ("result", words),
            ("result", words, "--wait"),
            ("cancel", good),
            ("retry", good),
            *((verb, UNKNOWN) for verb in ("show", "history", "result", "cancel", "retry")),
            ("result", UNKNOWN, "--wait"),
            ("submit", "third"),
            ("submit", "half"),
            ("submit", "half", "--queue", "", "--priority", "first"),
        ]
        for question in questions:
            for as_json in ([], ["--json"] if question[0] in ("list", "show") else []):
                by_store = await call(*question, *as_json, *store)
                by_tree = await tree.tasks(*question, *as_json)
                told = [(each.exit_code, each.stdout) for each in (by_store, by_tree)]
                assert told[0] == told[1], (question, by_store.stderr, by_tree.stderr)
                assert bool(by_store.stderr) == bool(by_tree.stderr)
                if question[0] != "submit":  # the names of the modules differ
                    assert by_store.stderr == by_tree.stderr
        assert (await tree.tasks("result", words)).stdout == '{\n  "words": "grün, 7"\n}\n'
        assert (await tree.tasks("show", UNKNOWN)).exit_code == 4
        assert (await tree.tasks("submit", "third")).exit_code == 4
        assert (await tree.tasks("submit", "half")).exit_code == 2
        assert (await tree.tasks("cancel", waits)).stdout == f"{waits}: killed\n"
        assert (await tree.tasks("cancel", waits)).exit_code == 1
        again = await tree.tasks("retry", waits)
        assert (again.exit_code, again.stdout.partition(":")[0]) == (0, waits)


async def test_a_call_is_submitted_over_http_and_waited_for(open_tree: OpenTree) -> None:
    async with open_tree() as tree:
        arguments = ("submit", "half", "--arguments")
        answer = await tree.tasks(*arguments, '{"n": 6}', "--wait")
        assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "3\n", "")
        answer = await tree.tasks(*arguments, '{"n": 7}', "--wait")
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert answer.stderr.endswith("failed: ValueError: 7 is odd\n")
        told = json.loads((await tree.tasks(*arguments, '{"n": 8}', "--json")).stdout)
        assert (told["arguments"], told["attempts"]) == ({"n": 8}, told["attempts"])
        answer = await tree.tasks("result", told["invocation_id"], "--wait")
        assert (answer.exit_code, answer.stdout) == (0, "4\n")
        when = ("--delay", "3600", "--queue", "mails", "--priority", "7", "--idempotency-key", "k")
        told = json.loads((await tree.tasks(*arguments, '{"n": 6}', *when, "--json")).stdout)
        assert (told["queue"], told["priority"], told["status"]) == ("mails", 7, "registered")
        assert told["timestamps"]["due_at"] > told["timestamps"]["created_at"]
        assert (await tree.tasks(*arguments, '{"n": 6}', *when)).stdout.startswith(
            told["invocation_id"]
        )
        answer = await tree.tasks(*arguments, '{"n": 6}', RUNTIME_TOKEN="")
        assert answer.exit_code == 5
        assert "token" in answer.stderr


async def test_a_list_is_read_page_by_page(
    open_tree: OpenTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.cli._tasks._PAGE", 2)
    async with open_tree() as tree:
        made = [await tree.submit("half", arguments={"n": 2}, delay_sec=60) for _ in range(5)]
        for limit in (1, 4, 5, 100):
            found = json.loads((await tree.tasks("list", "--limit", str(limit), "--json")).stdout)
            assert [each["invocation_id"] for each in found] == made[::-1][:limit]


async def test_what_is_in_memory_is_asked_of_the_running_tree(open_tree: OpenTree) -> None:
    async with open_tree() as tree:
        good = await tree.over("half", n=6)
        waits = await tree.submit("half", arguments={"n": 8}, delay_sec=3600)
        manifest = ("-f", str(tree.folder / "manifest.json"))
        # Another process first: here, a manifest takes the tasks of its modules away from the tree.
        submit = [sys.executable, "-m", "runtime", "tasks", "submit", "half", "--wait", *manifest]
        done = await trio.run_process(
            [*submit, "--arguments", '{"n": 10}'], capture_stdout=True, stderr=subprocess.STDOUT
        )
        assert done.stdout == b"5\n"
        folder = ("--run-directory", str(tree.folder / "run"))
        for where in (manifest, folder):
            answer = await call("list", "--status", "success", "--json", *where)
            assert json.loads(answer.stdout)[1]["invocation_id"] == good
            assert (await call("result", good, *where)).stdout == "3\n"
        assert (await call("cancel", waits, *manifest)).stdout == f"{waits}: killed\n"
    answer = await call("list", *manifest)
    assert answer.exit_code == 3
    assert "memory:// is seen by the running tree alone, and no tree serves" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


async def test_what_needs_the_store_itself_says_so(open_tree: OpenTree) -> None:
    async with open_tree() as tree:
        commands: list[tuple[str, ...]] = [("purge", "--over-for", "0"), ("check",)]
        for command in commands:
            answer = await tree.tasks(*command)
            assert answer.exit_code == 3
            assert "name the manifest of the store by -f" in answer.stderr
            answer = await call(*command, "-f", str(tree.folder / "manifest.json"))
            assert answer.exit_code == 3
            assert f"memory:// cannot be opened by tasks {command[0]}; " in answer.stderr
            assert len(answer.stderr.splitlines()) == 1


async def test_a_wait_for_a_tree_that_ends_is_3(open_tree: OpenTree) -> None:
    answers: list[Result] = []
    async with trio.open_nursery() as nursery, open_tree() as tree:
        waits = await tree.submit("half", arguments={"n": 8}, delay_sec=3600)

        async def wait() -> None:
            answers.append(await tree.tasks("result", waits, "--wait"))

        nursery.start_soon(wait)
        await tree.until_waited_for(waits)
    (answer,) = answers
    assert answer.exit_code == 3, answer.output
    assert answer.stdout == ""
    assert answer.stderr.startswith("no tree answers at http://")


async def test_a_token_for_nobody_is_told(write: Callable[..., Path], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    options = ("--token-file", str(token))
    store = ("-f", str(write("store", state_backend="sqlite:///calls.db")))
    for command in (("list",), ("submit", "half"), ("purge", "--over-for", "0"), ("check",)):
        answer = await call(*command, *store, *options)
        assert answer.exit_code == 2
        assert "--token-file is for a tree that is asked over HTTP" in answer.stderr
    assert not (tmp_path / "calls.db").exists()
