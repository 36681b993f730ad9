"""Services in their short form."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pydantic import SecretStr

from runtime.service import Service, ServiceConfiguration, as_service_class
from runtime.supervision.graph import Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen

if TYPE_CHECKING:
    from decimal import Decimal  # there for the type checker alone

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]


class Size(ServiceConfiguration):
    size: int = 3
    password: SecretStr = SecretStr("hunter2")


class MustSize(ServiceConfiguration):
    size: int


def add(t: Any, function: Any, name: str | None = None, **fields: Any) -> Service:
    return t.add(as_service_class(function)(name), **fields)  # type: ignore[no-any-return]


# --- functions ---------------------------------------------------------------------------------


async def test_a_function_runs_as_long_as_the_service(tree: MakeTree) -> None:
    log: list[str] = []

    async def ticker_service() -> None:
        """Tick."""
        try:
            while True:
                log.append("tick")
                await trio.sleep(1)
        finally:
            log.append("over")

    made = as_service_class(ticker_service)
    assert issubclass(made, Service)
    assert (made.__name__, made.__module__, made.__doc__) == ("ticker_service", __name__, "Tick.")
    assert made.__qualname__.endswith("<locals>.ticker_service")
    t = tree()
    service = add(t, ticker_service)
    assert service.name == "ticker"
    async with t.running():
        await service.start()
        assert service.status.state == "running"
        await trio.sleep(2.5)
        await service.stop()
        assert log == ["tick"] * 3 + ["over"]
        assert service.status.state == "stopped"
        await service.start()
        await trio.sleep(0.5)
    assert log == ["tick"] * 3 + ["over", "tick", "over"]
    assert t.moves("ticker") == ["starting", "running", "stopping", "stopped"] * 2


async def test_a_function_gets_its_configuration(tree: MakeTree) -> None:
    seen: list[Size] = []

    async def cache(config: Size, *, task_status: trio.TaskStatus[None]) -> None:
        seen.append(config)
        await trio.sleep(2)
        task_status.started()
        await trio.sleep_forever()

    t = tree()
    one, other = add(t, cache), add(t, cache, "other")
    async with t.running():
        begin = trio.current_time()
        await one.start()  # all of it has defaults
        assert trio.current_time() - begin == 2
        await one.stop()
        await one.configure_and_start({"size": 4})
        await other.configure_and_start(Size(size=5))
    assert [config.size for config in seen] == [3, 4, 5]
    assert one.status.metadata["password"] == "**********"  # noqa: S105


async def test_a_function_that_needs_one_has_to_be_configured(tree: MakeTree) -> None:
    async def cache(config: MustSize, /) -> None:
        assert config.size == 1
        await trio.sleep_forever()

    t = tree()
    service = add(t, cache)
    assert service.requires_configuration()
    async with t.running():
        with pytest.raises(Exception, match="must be configured before it is started"):
            await service.start()
        await service.configure_and_start({"size": 1})


async def test_a_function_that_returns_has_completed(tree: MakeTree) -> None:
    async def migrate() -> None:
        await trio.sleep(2)

    t = tree()
    service = add(t, migrate)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("migrate", Stage.COMPLETED)
        assert supervisor.status("migrate").reason == "completed after 2.0 s"
        assert (service.status.state, service.status.error) == ("stopped", None)
        await service.start()  # and can be run again
        await supervisor.wait_until("migrate", Stage.COMPLETED)
        assert supervisor.status("migrate").generation == 2


async def test_a_function_that_always_restarts_does_so_when_it_returns(tree: MakeTree) -> None:
    runs: list[float] = []

    async def poll() -> None:
        runs.append(trio.current_time())

    t = tree()
    policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=10, factor=1)
    service = add(t, poll, restart=policy)
    async with t.running():
        await service.start()
        await trio.sleep(35)
    assert [later - runs[0] for later in runs] == [0, 10, 20, 30]


async def test_a_function_that_raises(tree: MakeTree) -> None:
    async def before(*, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("no disk")

    async def behind(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise OSError("disk gone")

    async def never(*, task_status: trio.TaskStatus[None]) -> None:
        pass

    t = tree()
    services = [add(t, function) for function in (before, behind, never)]
    async with t.running() as supervisor:
        with pytest.raises(OSError, match="no disk"):
            await services[0].start()
        assert services[0].status.error == "no disk"
        await services[1].start()
        await supervisor.wait_until("behind", Stage.FAILED)
        assert services[1].status.error == "a background task died: OSError: disk gone"
        with pytest.raises(RuntimeError, match=r"without calling task_status.started\(\)"):
            await services[2].start()
        assert services[2].status.state == "error"


async def test_a_function_that_fails_when_it_is_cancelled(tree: MakeTree) -> None:
    async def sore() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("not flushed")

    t = tree()
    service = add(t, sore)
    async with t.running():
        await service.start()
        await service.stop()
        assert service.status.error == "a background task died: OSError: not flushed"


# --- generators and context managers -------------------------------------------------------------


async def serve(log: list[str], size: int) -> None:
    log.append(f"serve {size}")
    try:
        await trio.sleep_forever()
    finally:
        log.append("served")


@pytest.mark.parametrize("decorated", [False, True])
async def test_a_generator_is_ready_when_it_yields(tree: MakeTree, *, decorated: bool) -> None:
    log: list[str] = []

    async def cache_service(config: Size) -> AsyncGenerator[None]:
        """Keep."""
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, log, config.size)
            log.append("open")
            yield
            log.append("drain")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        log.append("closed")

    function: Any = asynccontextmanager(cache_service) if decorated else cache_service
    made = as_service_class(function)
    assert (made.__name__, made.__doc__, made.__module__) == ("cache_service", "Keep.", __name__)
    t = tree()
    service = add(t, function)
    async with t.running():
        for size in (3, 4):
            begin = trio.current_time()
            service.configure({"size": size})
            await service.start()
            assert trio.current_time() - begin == 1
            await trio.sleep(1)
            await service.stop()
            assert trio.current_time() - begin == 3
            assert sorted(log[:2]) == ["open", f"serve {size}"]
            assert log[2:] == ["drain", "served", "closed"]
            log.clear()
    assert t.moves("cache") == ["configured", "starting", "running", "stopping", "stopped"] * 2


async def test_a_generator_that_fails_before_it_yields(tree: MakeTree) -> None:
    async def cache() -> AsyncGenerator[None]:
        raise OSError("no disk")
        yield

    async def empty() -> AsyncGenerator[None]:
        for _ in ():
            yield

    t = tree()
    service, other = add(t, cache), add(t, empty)
    async with t.running():
        with pytest.raises(OSError, match="no disk"):
            await service.start()
        assert service.status.error == "no disk"
        with pytest.raises(RuntimeError, match="generator didn't yield"):
            await other.start()


async def test_a_generator_that_fails_behind_its_yield(tree: MakeTree) -> None:
    async def cache() -> AsyncGenerator[None]:
        yield
        raise OSError("not flushed")

    async def twice() -> AsyncGenerator[None]:
        yield
        yield

    t = tree()
    service, other = add(t, cache), add(t, twice)
    async with t.running() as supervisor:
        await service.start()
        await service.stop()
        assert service.status.error == "not flushed"
        assert supervisor.status("cache").reason == "stopped, but not flushed"
        await other.start()
        await other.stop()
        assert other.status.error == "generator didn't stop"


async def test_a_death_within_a_generator_is_told_and_the_generator_hears_of_it(
    tree: MakeTree,
) -> None:
    log: list[str] = []

    async def dies() -> None:
        await trio.sleep(1)
        raise OSError("socket gone")

    async def cache() -> AsyncGenerator[None]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dies)
                yield
        finally:
            log.append("cleared")

    t = tree()
    service = add(t, cache)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("cache", Stage.FAILED)
        assert service.status.error == "a background task died: OSError: socket gone"
    assert log == ["cleared"]


async def test_a_generator_that_ends_what_it_holds_open_has_completed(tree: MakeTree) -> None:
    async def window() -> AsyncGenerator[None]:
        with trio.move_on_after(5):
            yield

    t = tree()
    service = add(t, window)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("window", Stage.COMPLETED)
        assert service.status.state == "stopped"
        assert supervisor.status("window").reason == "completed after 5.0 s"


async def test_a_generator_whose_end_hangs_is_cut_off(tree: MakeTree) -> None:
    log: list[str] = []

    async def cache() -> AsyncGenerator[None]:
        yield
        try:
            await trio.sleep_forever()
        finally:
            log.append("cut off")

    t = tree()
    service = add(t, cache, timeout=2)
    async with t.running():
        await service.start()
        begin = trio.current_time()
        await service.stop()
        assert trio.current_time() - begin == 2
        assert service.status.error == "stop() was still running after 2.0 s and was cut off"
    assert log == ["cut off"]


async def test_a_generator_that_never_yields_can_be_stopped_at_once(tree: MakeTree) -> None:
    async def cache() -> AsyncGenerator[None]:
        await trio.sleep_forever()
        yield

    t = tree()
    service = add(t, cache)
    async with t.running() as supervisor:
        supervisor.ask_start("cache")
        await supervisor.wait_until("cache", Stage.STARTING)
        begin = trio.current_time()
        await service.stop()
        assert (service.status.state, trio.current_time()) == ("stopped", begin)


async def test_a_class_is_taken_as_it_is(kit: Any) -> None:
    assert as_service_class(kit.ScriptedService) is kit.ScriptedService


# --- what is refused ---------------------------------------------------------------------------


def plain() -> None:
    pass


async def no_annotation(config) -> None:  # type: ignore[no-untyped-def]
    pass


async def wrong_annotation(config: int) -> None:
    pass


async def optional(config: Size | None = None) -> None:
    pass


async def too_many(config: Size, other: int) -> None:
    pass


async def too_many_configurations(config: Size, other: Size) -> None:
    pass


async def by_name_only(*, config: Size) -> None:
    pass


async def status_by_place(task_status: trio.TaskStatus[None], /) -> None:
    pass


async def generator_with_status(*, task_status: trio.TaskStatus[None]) -> AsyncGenerator[None]:
    yield


async def unknown(config: Decimal) -> None:
    pass


WANTED = "a service takes its configuration, annotated with a class derived from Serv"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        pytest.param(plain, "is no Service, async function, generator or context manager", id="d"),
        pytest.param(3, "3 is no Service, async function", id="a number"),
        pytest.param(dict, "dict is no Service; derive it from that", id="another class"),
        pytest.param(
            functools.partial(optional), "is no Service, async function", id="without a name"
        ),
        *(
            pytest.param(made, rf"{made.__name__}\(.*: such {WANTED}", id=made.__name__)
            for made in (
                *(no_annotation, wrong_annotation, optional, too_many, too_many_configurations),
                *(by_name_only, status_by_place, generator_with_status),
            )
        ),
        pytest.param(unknown, "unknown: name 'Decimal' is not defined, which annotates", id="name"),
    ],
)
def test_what_is_no_service_is_refused_with_what_is_wanted(made: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        as_service_class(made)


async def others_may_be_anything(
    config: Size, retries: int = 3, *rest: Decimal, limit: Decimal | None = None, **more: Decimal
) -> Decimal | None:
    raise LookupError(f"{config.size} {retries}")


async def test_what_need_not_be_given_and_what_is_not_importable_does_no_harm(
    tree: MakeTree,
) -> None:
    t = tree()
    service = add(t, others_may_be_anything)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until(service.name, Stage.FAILED)
        assert service.status.error == "a background task died: LookupError: 3 3"


async def test_a_decorated_function_is_still_a_function(tree: MakeTree) -> None:
    log: list[str] = []

    async def generator(config: Size) -> AsyncGenerator[None]:
        yield

    @functools.wraps(generator)
    async def run(config: Size) -> None:
        log.append(f"ran {config.size}")

    t = tree()
    service = add(t, run)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("generator", Stage.COMPLETED)
    assert log == ["ran 3"]
