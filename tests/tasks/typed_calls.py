"""What type checkers know of tasks: they check this file, and a test runs it."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, assert_type

from runtime import Application
from runtime.tasks import Invocation, PlainTask, Task

app = Application()


@app.task
async def length(words: str) -> int:
    return len(words)


@app.task(max_retries=1, retry_for=(OSError,))
async def resize(tenant: str, image: int) -> Path:
    return Path(tenant, f"{image}.png")


@app.task
def add(a: int, b: int = 1) -> int:
    return a + b


@app.task(priority=1)
def spread(number: int) -> list[int]:
    return [number]


async def use() -> None:
    """Call and submit each of them."""
    coroutine = assert_type(resize("acme", 7), Coroutine[Any, Any, Path])
    assert_type(await coroutine, Path)
    assert_type(await length("four"), int)
    assert_type(add(1), int)
    assert_type(spread(number=1), list[int])
    assert_type(await resize.submit("acme", 7), Invocation[Path])
    assert_type(await (await length.submit("four")).result(), int)
    assert_type(await (await spread.submit(1)).result(), list[int])
    assert_type(await add.with_options(delay_sec=0.001).submit(1, b=2), Invocation[int])
    async with add.map([(1,), (2,)]) as results:
        async for each in results:
            assert_type(each, int)
    plain: PlainTask[..., int] = add
    any_of_them: list[Task[..., Any]] = [length, resize, plain, spread]
    assert [each.is_async for each in any_of_them] == [True, True, False, False]


async def misuse() -> None:
    """Do what no checker lets pass; mypy says so where one of these is let pass."""
    await length(4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await resize("acme")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.submit("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add(1) + "2"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
