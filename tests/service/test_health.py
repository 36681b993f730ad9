"""A service whose manager can be asked for its health is asked, and fails by the answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime import Application, HealthPolicy, RestartPolicy, Service, ServiceManager, load_manifest
from runtime.exceptions import ConfigurationError, ServiceError, UnhealthyError
from runtime.service import service_unit
from runtime.supervision.events import EventKind
from runtime.supervision.graph import Stage
from runtime.supervision.health import spread_of
from runtime.supervision.restart import RestartWhen
from runtime.supervision.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
IN_A_SECOND = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=1, factor=1)
EVERY_TEN = HealthPolicy(interval_sec=10, timeout_sec=2, failures=2)


def askable(kit: Any, script: Any, *answers: object, name: str = "a") -> Any:
    """Return a service that answers by the list, with its last item for ever."""
    left = list(answers)

    class Manager(kit.ScriptedManager):  # type: ignore[misc]
        moments: list[float] = []  # noqa: RUF012

        async def check_health(self) -> None:
            self.moments.append(trio.current_time())
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            await trio.sleep(answer)

    class Askable(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Manager

    service = Askable(name, script)
    service.moments = Manager.moments
    return service


async def test_the_failures_that_are_enough_end_it_in_order_and_its_policy_applies(
    kit: Any, tree: MakeTree
) -> None:
    t, bad = tree(), OSError("the connection is gone")
    script = kit.Script()
    service = t.add(
        askable(kit, script, 0, bad, 0, bad, bad, 0), restart=IN_A_SECOND, health=EVERY_TEN
    )
    async with t.running() as supervisor:
        await service.start()
        began = trio.current_time()
        await wait_all_tasks_blocked()
        assert supervisor.status("a").healthy is True
        await trio.sleep_until(began + 17)
        assert supervisor.status("a").healthy is False
        await supervisor.wait_until("a", Stage.BACKOFF)
        second = began + 10 + spread_of("a") * 5
        # The rhythm is exact: the fifth check failed, and the service with it.
        assert trio.current_time() == pytest.approx(second + 30, abs=1e-9)
        status = supervisor.status("a")
        assert isinstance(status.error, UnhealthyError)
        assert status.error.args == ("a", "check_health", 2, "the connection is gone")
        assert status.healthy is None
        await supervisor.wait_until("a", Stage.READY)
        await service.stop()
    assert script.log == ["start", "started", "stop", "stopped"] * 2
    assert script.seen_at_stop == [1, 1]  # the background task is still there
    notes = [e.reason for e in t.events("a") if e.kind is EventKind.NOTED]
    failing = "fails its health check (1 of 2): the connection is gone"
    assert notes == [failing, "is healthy again", failing, "restart in 1 s"]


async def test_a_check_that_hangs_is_cancelled_and_has_failed(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(askable(kit, kit.Script(), 1_000), health=EVERY_TEN)
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("a", Stage.FAILED)
    assert service.status.state == "error"
    assert service.status.error.endswith("no answer within 2 s (the limit is timeout_sec)")


async def test_a_stop_ends_the_checks_and_waits_for_none(kit: Any, tree: MakeTree) -> None:
    t = tree()
    policy = HealthPolicy(interval_sec=10, timeout_sec=500)
    service = t.add(askable(kit, kit.Script(stop_sec=3), 400), health=policy)
    async with t.running():
        await service.start()
        await trio.sleep(100)
        began = trio.current_time()
        await service.stop()
        assert trio.current_time() - began == 3
    assert len(service.moments) == 1


async def test_what_cannot_be_asked_is_not_started(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"), health=EVERY_TEN)
    async with t.running():
        with pytest.raises(ConfigurationError) as caught:
            await service.start()
        assert caught.value.problem == (
            "cannot be asked for its health; override check_health in its ServiceManager"
            " (a function or generator has none)"
        )
    with pytest.raises(ServiceError, match="ScriptedManager has no check_health"):
        await service.manager.check_health()


class Sick(ServiceManager):
    async def start(self) -> None:
        """Nothing is needed."""

    async def stop(self) -> None:
        """Nothing is held."""

    async def check_health(self) -> None:
        raise OSError("sick")


class SickService(Service):
    def requires_configuration(self) -> bool:
        return False

    def create_manager(self) -> ServiceManager:
        return Sick()


async def test_an_application_registers_a_service_with_its_health() -> None:
    async with Application(keep=True) as app:
        service = app.register_service(
            SickService, health=HealthPolicy(failures=1, start_delay_sec=5)
        )
        await service.start()
        await app.supervisor.wait_until("sick", Stage.FAILED)
        assert service.status.error == (
            "unhealthy, it failed a health check (by check_health; the limit is health.failures):"
            " sick"
        )


async def test_a_manifest_says_how_often_a_service_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "manifest.yaml"
    file.write_text(f"""
services:
  - name: sick
    class: "{__name__}:SickService"
    health: {{failures: 2, interval_sec: 4}}
    restart: {{when: never}}
""")
    (tmp_path / f"{__name__}.py").write_text("")  # it is imported already
    async with Application(load_manifest(file)) as app:
        await app.supervisor.wait_until("sick", Stage.FAILED)
        assert isinstance(app.supervisor.status("sick").error, UnhealthyError)


@pytest.mark.parametrize("ticks", range(12))
async def test_cancelled_at_any_tick_no_check_goes_on(kit: Any, ticks: int) -> None:
    service = askable(kit, kit.Script(background_tasks=0), 1)
    unit = service_unit(service, health=EVERY_TEN)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Supervisor([unit]).run)
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert service.script.live == 0
    checks = len(service.moments)
    await trio.sleep(100)
    assert len(service.moments) == checks


async def test_a_day_of_twenty_services_has_the_exact_moments(kit: Any, tree: MakeTree) -> None:
    """Each passes six checks, then fails two, is down for half a minute, and begins anew."""
    day, bad, t = 86_400.0, OSError("bad"), tree()
    services = []
    for number in range(20):
        answers = [0, 0, 0, 0, 0, 0, bad, bad] * 200
        policy = HealthPolicy(interval_sec=120 * (number + 1), failures=2)
        restart = RestartPolicy(
            when=RestartWhen.ALWAYS, delay_sec=30, factor=1, forgive_after_sec=0
        )
        script = kit.Script(background_tasks=0)
        service = askable(kit, script, *answers, name=f"s-{number}")
        services.append((t.add(service, health=policy, restart=restart), policy.interval_sec))
    async with t.running():
        began = trio.current_time()
        for service, _ in services:
            await service.start()
        assert trio.current_time() == began
        await trio.sleep_until(began + day)
    for service, interval in services:
        expected, first, lag = [], 0.0, spread_of(service.name) / 2
        while first <= day:
            expected += [first, *(first + (lag + n) * interval for n in range(1, 8))]
            first = expected[-1] + 30
        expected = [moment for moment in expected if moment <= day]
        assert len(service.moments) == len(expected)
        assert service.moments == pytest.approx([began + each for each in expected], abs=1e-6)
