"""The helpers for tests of services, used as somebody would who tests a service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime import RestartPolicy, Service, ServiceConfiguration, ServiceManager
from runtime.service import ConfigurationError, ServiceFailedError, ServiceState, ServiceStopError
from runtime.supervision import RestartWhen
from runtime.supervision.graph import Stage
from runtime.testing import ServiceUnderTest, StateChange, open_service

pytestmark = pytest.mark.usefixtures("autojump_clock")

S = ServiceState


class CounterConfiguration(ServiceConfiguration):
    every_sec: float


class CounterManager(ServiceManager):
    """Counts while it runs; what goes wrong is up to the test."""

    def __init__(self, service: CounterService) -> None:
        super().__init__(service.logger)
        self.service = service

    async def start(self) -> None:
        await trio.sleep(self.service.start_sec)
        if self.service.start_error is not None:
            raise self.service.start_error
        self.nursery.start_soon(self.count)

    async def count(self) -> None:
        config = self.service.config
        assert isinstance(config, CounterConfiguration)
        while True:
            await trio.sleep(config.every_sec)
            self.service.counted += 1

    async def stop(self) -> None:
        await trio.sleep(self.service.stop_sec)
        if self.service.stop_error is not None:
            raise self.service.stop_error


class CounterService(Service):
    configuration_class = CounterConfiguration
    counted = 0
    start_sec = stop_sec = 0.0
    start_error: Exception | None = None
    stop_error: Exception | None = None

    def create_manager(self) -> CounterManager:
        return CounterManager(self)


COUNT = CounterConfiguration(every_sec=10)


def names(under_test: ServiceUnderTest[Service]) -> list[str]:
    return [str(change.state) for change in under_test.states]


# --- what is opened -------------------------------------------------------------------------------


async def test_a_class_is_made_configured_started_and_stopped() -> None:
    async with open_service(CounterService, {"every_sec": 10}) as opened:
        assert (opened.service.name, opened.state) == ("counter", S.RUNNING)
        await trio.sleep(35)
        assert opened.service.counted == 3
        assert names(opened) == ["configured", "starting", "running"]
    assert opened.state is S.STOPPED
    assert names(opened)[3:] == ["stopping", "stopped"]
    assert opened.service.counted == 3


async def test_a_change_of_state_has_its_reason() -> None:
    async with open_service(CounterService, COUNT) as opened:
        opened.service.set_error("the disk is full")
        await opened.wait_state("error")
    assert opened.states[:2] == [(S.CONFIGURED, "configured"), (S.STARTING, "starting")]
    assert opened.states[3] == StateChange(S.ERROR, "the disk is full")


async def test_a_service_that_was_made_keeps_its_name_and_may_be_opened_again() -> None:
    service = CounterService("mine")
    service.configure(COUNT)
    for _ in range(2):
        async with open_service(service) as opened:
            assert opened.service is service
            await trio.sleep(10)
        assert names(opened) == ["starting", "running", "stopping", "stopped"]
    assert service.counted == 2
    with pytest.raises(TypeError, match="'mine' has its name already"):
        open_service(service, name="other")


async def count_down(config: CounterConfiguration, *, task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep(config.every_sec)
    task_status.started()
    await trio.sleep(config.every_sec)


@asynccontextmanager
async def lamp() -> AsyncGenerator[None]:
    yield


@pytest.mark.parametrize(
    ("function", "configuration"), [(count_down, COUNT), (lamp, None)], ids=["function", "block"]
)
async def test_a_short_form_is_opened_as_well(
    function: Callable[..., Awaitable[None]], configuration: ServiceConfiguration | None
) -> None:
    async with open_service(function, configuration, name="short") as opened:
        assert (opened.service.name, opened.state) == ("short", S.RUNNING)
    assert opened.state is S.STOPPED


async def test_a_service_may_complete_while_it_is_open() -> None:
    async with open_service(count_down, COUNT) as opened:
        assert await opened.wait_state("stopped") == S.STOPPED
        assert opened.unit.reason == "completed after 20.0 s"


async def test_a_service_may_be_left_to_the_test_to_start() -> None:
    service = CounterService()
    service.start_sec = 60
    async with open_service(service, COUNT, start=False) as opened, trio.open_nursery() as nursery:
        assert opened.state is S.CONFIGURED
        nursery.start_soon(service.start)
        assert await opened.wait_state(S.STARTING, S.RUNNING) is S.STARTING
        assert await opened.wait_state(S.RUNNING) is S.RUNNING
        assert trio.current_time() == pytest.approx(60)
    assert names(opened) == ["configured", "starting", "running", "stopping", "stopped"]


# --- what goes wrong ------------------------------------------------------------------------------


async def test_what_keeps_a_service_from_starting_is_raised_as_it_is() -> None:
    service = CounterService()
    service.start_error = error = OSError("no route")
    with pytest.raises(OSError, match="no route") as caught:
        async with open_service(service, COUNT):
            raise AssertionError("the block was entered")
    assert caught.value is error
    assert service.status.state is S.ERROR


async def test_a_configuration_that_is_missing_or_does_not_fit_is_raised_as_it_is() -> None:
    with pytest.raises(ConfigurationError, match="must be configured before it is started"):
        async with open_service(CounterService):
            raise AssertionError("the block was entered")
    with pytest.raises(ConfigurationError, match="every_sec"):
        async with open_service(CounterService, {"every_sec": "soon"}):
            raise AssertionError("the block was entered")


class Unlike(BaseException):
    """As test frameworks have them, to leave a test."""


@pytest.mark.parametrize("error", [AssertionError("wrong"), Unlike("skip")], ids=["error", "other"])
async def test_what_a_block_raises_is_raised_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_service(CounterService, COUNT) as opened:
            raise error
    assert caught.value is error
    assert opened.state is S.STOPPED


async def test_a_block_that_is_cancelled_stops_the_service() -> None:
    service = CounterService()
    service.stop_sec = 1
    with trio.move_on_after(60) as scope:
        async with open_service(service, COUNT) as opened:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert opened.state is S.STOPPED
    assert trio.current_time() >= 61


async def test_a_failing_start_is_raised_with_the_cause_that_it_has() -> None:
    async def refuses(*, task_status: trio.TaskStatus[None]) -> None:
        raise LookupError("no such host") from OSError("the network is down")

    with pytest.raises(LookupError, match="no such host") as caught:
        async with open_service(refuses):
            pytest.fail("it has never been ready")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_stop_that_fails_is_raised_at_the_end() -> None:
    service = CounterService()
    service.stop_error = error = ValueError("cannot let go")
    with pytest.raises(ValueError, match="cannot let go") as caught:
        async with open_service(service, COUNT):
            pass
    assert caught.value is error


async def test_a_stop_that_hangs_is_raised_at_the_end() -> None:
    service = CounterService()
    service.stop_sec = 1000
    with pytest.raises(ServiceStopError) as caught:
        async with open_service(service, COUNT, timeout=7):
            pass
    assert caught.value.within_sec == 7


async def test_a_failure_that_the_test_has_not_reckoned_with_fails_it() -> None:
    async def test() -> None:
        async with open_service(CounterService, COUNT) as opened:
            opened.service.set_error("the disk is full")
            await trio.sleep(100)

    with pytest.raises(ServiceFailedError, match="the disk is full"):
        await test()


@pytest.mark.parametrize(
    ("error", "words"), [(None, "crashed by the test"), (OSError("gone"), "OSError: gone")]
)
async def test_a_crash_ends_a_service_in_error(error: Exception | None, words: str) -> None:
    async with open_service(CounterService, COUNT) as opened:
        opened.crash(error)
        await opened.wait_state("error")
        assert words in str(opened.service.status.error)
        await opened.supervisor.wait_until("counter", Stage.FAILED)  # its stop() has been called
        with pytest.raises(RuntimeError, match="the service is down"):
            opened.crash()


async def test_a_restart_policy_is_tried_without_waiting() -> None:
    restart = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=600, factor=2, max_delay_sec=10_000)
    async with open_service(CounterService, COUNT, restart=restart) as opened:
        began = trio.current_time()
        for delay_sec in (600, 1200):
            opened.crash()
            assert await opened.wait_state("error") == "error"
            assert await opened.wait_state("running") == "running"
            assert trio.current_time() - began == pytest.approx(delay_sec)
            began = trio.current_time()
        assert opened.unit.restarts == 2


async def test_no_change_is_missed_by_who_waits_for_it() -> None:
    restart = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=0)
    async with open_service(CounterService, COUNT, restart=restart) as opened:
        opened.crash()
        assert await opened.wait_state("error") is S.ERROR  # however soon it runs again


async def test_who_waits_for_what_never_comes_is_told_when_the_block_is_left() -> None:
    async def wait(opened: ServiceUnderTest[Service]) -> None:
        with pytest.raises(RuntimeError, match="left before it was configured or error"):
            await opened.wait_state("configured", "error")

    async with trio.open_nursery() as nursery, open_service(CounterService, COUNT) as opened:
        nursery.start_soon(wait, opened)
        await wait_all_tasks_blocked()


# --- where tests run ------------------------------------------------------------------------------


@pytest.fixture
async def opened_by_fixture() -> AsyncGenerator[ServiceUnderTest[CounterService]]:
    async with open_service(CounterService, COUNT) as opened:
        yield opened


async def test_a_fixture_may_hold_a_service_open(
    opened_by_fixture: ServiceUnderTest[CounterService],
) -> None:
    await trio.sleep(25)
    assert opened_by_fixture.service.counted == 2


def test_no_plugin_is_needed() -> None:
    async def test() -> int:
        async with open_service(CounterService, COUNT) as opened:
            await trio.sleep(3605)
            return opened.service.counted

    assert trio.run(test, clock=MockClock(autojump_threshold=0)) == 360
