"""An application runs services and processes as one tree."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime import (
    Application,
    Manifest,
    ProcessPilot,
    Service,
    ServiceConfiguration,
    ServiceManager,
    load_manifest,
)
from runtime.exceptions import (
    ConfigurationError,
    DuplicateUnitError,
    IllegalTransitionError,
    ManifestError,
    ServiceFailedError,
    UnitFailedError,
    UnitInUseError,
    UnknownServiceClassError,
    UnknownUnitError,
)
from runtime.service import ServiceState, register_service_class, registry
from runtime.supervision import Condition, Requirement, RestartPolicy, RestartWhen, Stage

pytestmark = pytest.mark.usefixtures("autojump_clock")


class TickerConfiguration(ServiceConfiguration):
    every_sec: float = 1.0


class TickerManager(ServiceManager):
    """Counts, and writes down what is asked of it."""

    def __init__(self, service: TickerService) -> None:
        super().__init__(service.logger)
        self.log: list[str] = []
        self.ticks = 0
        self._every_sec = service.config.every_sec if service.config else 1.0

    async def start(self) -> None:
        self.log.append("start")
        self.nursery.start_soon(self._tick)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(self._every_sec)
            self.ticks += 1

    async def stop(self) -> None:
        self.log.append("stop")


class TickerService(Service):
    configuration_class = TickerConfiguration
    config: TickerConfiguration | None

    def create_manager(self) -> TickerManager:
        return TickerManager(self)

    def requires_configuration(self) -> bool:
        return False


class StrictService(TickerService):
    def requires_configuration(self) -> bool:
        return True


# --- registering ----------------------------------------------------------------------------------


async def test_a_service_is_registered_and_not_started() -> None:
    app = Application()
    service = app.register_service(TickerService)
    assert isinstance(service, TickerService)
    assert (service.name, service.status.state) == ("ticker", ServiceState.INITIALIZED)
    assert app.get_service("ticker") is service
    assert app.get_service("nobody") is None
    assert dict(app.services) == {"ticker": service}


async def test_several_instances_of_a_class_have_names_of_their_own() -> None:
    app = Application()
    names = [app.register_service(TickerService, name).name for name in (None, None, "own", None)]
    assert names == ["ticker", "ticker_1", "own", "ticker_2"]
    with pytest.raises(DuplicateUnitError, match="already a unit 'own'"):
        app.register_service(TickerService, "own")
    with pytest.raises(ValueError, match="no unit 'nobody'"):
        app.register_service(TickerService, requirements=[Requirement("nobody")])
    assert len(app.services) == 4


async def test_services_are_found_by_their_class() -> None:
    app = Application()
    one, strict = app.register_service(TickerService), app.register_service(StrictService)
    assert app.get_services_by_type(TickerService) == [one, strict]
    assert app.get_services_by_type(StrictService) == [strict]


async def test_a_service_may_be_registered_by_the_name_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_classes", {})
    register_service_class(TickerService)
    app = Application()
    assert app.register_service_by_name("ticker").name == "ticker"
    assert app.register_service_by_name("ticker", "own").name == "own"
    with pytest.raises(UnknownServiceClassError, match="'tikcer'; did you mean 'ticker'"):
        app.register_service_by_name("tikcer")


# --- the life of the whole ------------------------------------------------------------------------


async def test_enabled_services_start_with_the_application_and_stop_with_it() -> None:
    app = Application(version="1.2")
    service, off, strict = (
        app.register_service(cls, name)
        for cls, name in ((TickerService, "on"), (TickerService, "off"), (StrictService, "strict"))
    )
    off.configure({"enabled": False})
    assert app.status.model_dump(mode="json")["state"] == "initialized"
    async with app:
        assert (app.state, app.is_running()) == (ServiceState.RUNNING, True)
        states = {name: status.state.value for name, status in app.status.services.items()}
        assert states == {"on": "running", "off": "configured", "strict": "initialized"}
        await trio.sleep(3.5)
        assert service.manager.ticks == 3
        assert app.status.version == "1.2"
    assert service.manager.log == ["start", "stop"]
    assert strict.status.state is ServiceState.INITIALIZED
    assert app.state is ServiceState.STOPPED
    with pytest.raises(RuntimeError, match="has been started before"):
        await app.start()


async def test_start_runs_until_stop_is_called(nursery: trio.Nursery) -> None:
    app = Application()
    service = app.register_service(TickerService)
    await app.initialize()
    await app.stop()  # there is nothing to stop
    await nursery.start(app.start)
    assert app.is_initialized
    assert service.status.state is ServiceState.RUNNING
    await app.stop()
    assert not app.is_running()
    assert service.status.state is ServiceState.STOPPED


@pytest.fixture
async def nursery() -> AsyncGenerator[trio.Nursery]:
    async with trio.open_nursery() as opened:
        yield opened


async def test_a_service_is_started_and_stopped_by_name() -> None:
    async with Application() as app:
        service = app.register_service(TickerService)
        await wait_all_tasks_blocked()
        assert service.status.state is ServiceState.INITIALIZED
        await app.start_service("ticker")
        assert service.status.state is ServiceState.RUNNING
        with pytest.raises(IllegalTransitionError, match="running cannot become starting"):
            await app.start_service("ticker")
        await app.stop_service("ticker")
        assert service.manager.log == ["start", "stop"]
        for call in (app.start_service, app.stop_service, app.deregister_service):
            with pytest.raises(UnknownUnitError, match="'tikcer'; did you mean 'ticker'"):
                await call("tikcer")


async def test_enabled_services_can_be_started_together_later() -> None:
    async with Application() as app:
        one, off, strict = (
            app.register_service(cls, name)
            for cls, name in ((TickerService, "a"), (TickerService, "b"), (StrictService, "c"))
        )
        off.configure({"enabled": False})
        await app.start_enabled_services()
        states = [service.status.state.value for service in (one, off, strict)]
        assert states == ["running", "configured", "initialized"]
        await app.start_enabled_services()  # what runs stays


async def test_a_service_registered_while_the_tree_runs_is_stopped_in_order() -> None:
    order: list[str] = []

    class Noting(TickerService):
        async def stop(self) -> None:
            await super().stop()
            order.append(self.name)

    app = Application()
    app.register_service(Noting, "first")
    async with app:
        later = app.register_service(Noting, "later", requirements=[Requirement("first")])
        last = app.register_service(Noting, "last", requirements=[Requirement("later")])
        await last.start()  # and what it needs
        assert later.status.state is ServiceState.RUNNING
        assert app.status.services["last"].state is ServiceState.RUNNING
    assert order == ["last", "later", "first"]


async def test_a_service_is_deregistered() -> None:
    async with Application() as app:
        base = app.register_service(TickerService, "base")
        user = app.register_service(TickerService, "user", requirements=[Requirement("base")])
        await user.start()
        with pytest.raises(UnitInUseError, match="'base' cannot be removed, it is needed by user"):
            await app.deregister_service("base")
        assert await app.deregister_service("user")
        assert user.manager.log == ["start", "stop"]
        assert list(app.services) == ["base"]
        assert await app.deregister_service("base")
        assert app.register_service(TickerService, "base") is not base


async def test_a_service_is_deregistered_also_when_nobody_waits_for_its_end() -> None:
    stops, may_go = trio.Event(), trio.Event()

    class SlowService(TickerService):
        async def stop(self) -> None:
            stops.set()
            await may_go.wait()
            await super().stop()

    async with Application() as app:
        slow = app.register_service(SlowService)
        await slow.start()
        with trio.CancelScope() as scope:
            scope.cancel()
            await app.deregister_service("slow")
        assert scope.cancelled_caught
        await stops.wait()
        assert app.get_service("slow") is None
        with pytest.raises(DuplicateUnitError):  # it is not down yet
            app.register_service(SlowService, "slow")
        may_go.set()
        await wait_all_tasks_blocked()
        assert slow.manager.log == ["start", "stop"]
        assert app.register_service(SlowService, "slow") is not slow


async def test_one_service_that_fails_keeps_no_other_from_being_started() -> None:
    class BadService(TickerService):
        async def start(self) -> None:
            raise OSError("no disk")

    class LaterService(TickerService):
        async def start(self) -> None:
            await trio.sleep(5)
            await super().start()

    async with Application() as app:
        bad = app.register_service(BadService)
        later = app.register_service(LaterService)
        with pytest.raises(UnitFailedError, match="no disk"):
            await app.start_enabled_services()
        assert later.status.state is ServiceState.RUNNING
        app.register_service(BadService, "worse")
        bad.configure({})
        with pytest.RaisesGroup(UnitFailedError, UnitFailedError):
            await app.start_enabled_services()


async def test_a_configuration_with_autostart_starts_a_service() -> None:
    app = Application()
    before = app.register_service(StrictService, "before")
    before.configure({"autostart": True, "enabled": False})
    async with app:
        assert before.status.state is ServiceState.RUNNING
        during = app.register_service(StrictService, "during")
        during.configure({"autostart": True})
        await app.supervisor.wait_until("during", Stage.READY)
        with pytest.raises(ConfigurationError, match="must be configured before it is started"):
            await app.register_service(StrictService, "never").start()
    elsewhere = StrictService("elsewhere")
    elsewhere.configure({"autostart": True})


async def test_a_failed_service_puts_the_application_into_error_and_nothing_else() -> None:
    app = Application()
    healthy = app.register_service(TickerService, "healthy")

    async def dies() -> None:
        await trio.sleep(1)
        raise OSError("the disk is gone")

    failing = app.register_service(dies)
    async with app:
        assert app.state is ServiceState.RUNNING
        await app.supervisor.wait_until("dies", Stage.FAILED)
        assert app.state is ServiceState.ERROR
        assert failing.status.error == "a background task died: OSError: the disk is gone"
        assert healthy.status.state is ServiceState.RUNNING


async def test_a_service_that_fails_at_the_start_says_so_to_who_starts_it() -> None:
    class Failing(TickerManager):
        async def start(self) -> None:
            raise LookupError("no such host")

    class FailingService(TickerService):
        def create_manager(self) -> TickerManager:
            return Failing(self)

    async with Application() as app:
        service = app.register_service(FailingService)
        with pytest.raises(LookupError, match="no such host"):
            await service.start()
        assert (service.status.state, service.status.error) == ("error", "no such host")


async def test_a_restart_policy_brings_a_service_back() -> None:
    policy = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=2)
    app = Application()
    service = app.register_service(TickerService, restart=policy)
    async with app:
        service.set_error("lost the connection")
        assert service.status.error == "lost the connection"
        await app.supervisor.wait_until("ticker", Stage.BACKOFF)
        assert isinstance(app.supervisor.status("ticker").error, ServiceFailedError)
        assert app.state is ServiceState.RUNNING
        await app.supervisor.wait_until("ticker", Stage.READY)
        assert service.manager.log == ["start", "stop", "start"]
        assert service.status.error is None


class LateApplication(Application):
    """What surrounds its tree takes until it *may_open*, or fails then."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.opens, self.may_open, self.failure = trio.Event(), trio.Event(), failure

    @asynccontextmanager
    async def _surroundings(self) -> AsyncGenerator[None]:
        self.opens.set()
        await self.may_open.wait()
        if self.failure is not None:
            raise self.failure
        yield


async def test_told_to_stop_while_it_is_about_to_start_it_starts_nothing() -> None:
    app = LateApplication()
    service = app.register_service(TickerService)
    await app.stop()  # of what has not been asked to start
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.start)
        await app.opens.wait()
        nursery.start_soon(app.stop)
        await wait_all_tasks_blocked()
        app.may_open.set()
    assert service.manager.log == []
    await app.stop()  # of what is over


@pytest.mark.parametrize("as_block", [True, False])
async def test_what_keeps_it_from_starting_is_raised_as_it_is(as_block: bool) -> None:
    app = LateApplication(OSError("no store"))
    app.may_open.set()

    async def run() -> None:
        if as_block:
            async with app:
                pass
        else:
            await app.start()

    with pytest.raises(OSError, match="no store"):
        await run()
    await app.stop()


# --- with a manifest ------------------------------------------------------------------------------

SERVICES = """
from runtime import Service, ServiceConfiguration, ServiceManager

class CacheConfiguration(ServiceConfiguration):
    size: int

class CacheManager(ServiceManager):
    async def start(self): pass
    async def stop(self): pass

class CacheService(Service):
    configuration_class = CacheConfiguration
    def create_manager(self):
        assert self.config.size >= 0, "size is negative"
        return CacheManager(self.logger)

async def plain(): pass
def nothing(): pass
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module beside the manifest, which nobody has imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICES)
    return name


Make = Callable[..., Manifest]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make_manifest(*services: dict[str, Any], **fields: Any) -> Manifest:
        return Manifest.model_validate(
            {"services": list(services), "base_directory": tmp_path, **fields}
        )

    return make_manifest


def sleeper(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "path": "sleep", "args": ["1000"], **fields}


async def test_services_of_a_manifest_are_configured_and_started(make: Make, module: str) -> None:
    cache = {"class": f"{module}:CacheService"}
    app = Application(
        make(
            {"name": "cache", **cache, "configuration": {"size": 5}, "dependencies": ["small"]},
            {"name": "small", **cache, "configuration": {"size": 1}},
            {"name": "off", **cache, "configuration": {"size": 2}, "enabled": False},
            {"name": "asked", **cache, "configuration": {"size": 2}, "autostart": False},
            version="2.0",
        )
    )
    async with app:
        states = {name: status.state.value for name, status in app.status.services.items()}
        assert states == {
            "small": "running",
            "cache": "running",
            "off": "configured",
            "asked": "configured",
        }
        assert app.status.version == "2.0"
        assert app.status.services["cache"].metadata["size"] == 5
        await app.start_enabled_services()
        assert app.status.services["asked"].state is ServiceState.RUNNING
        assert app.pilot is not None
        assert app.pilot.get_running_process() == []


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"class": "{m}:CacheServce"}, "class: module '{m}' has no 'CacheServce'; did you mean"),
        ({"class": "{m}_no:X"}, "class: module '{m}_no' cannot be imported: ModuleNotFoundError"),
        ({"class": "nothing-registered"}, "class: no service class is registered as 'nothing-"),
        ({"class": "{m}:nothing"}, "class: <function nothing at"),
        ({"class": "{m}:number"}, "class: 5 is no Service, async function, generator or context"),
        ({"class": "{m}:CacheManager"}, "class: CacheManager is no Service; derive it from that"),
        ({"configuration": None}, "configuration: must be configured before it is started"),
        ({"configuration": {"size": "x"}}, "configuration.size: input should be a valid integer"),
        ({"configuration": {"size": 1, "siz": 1}}, "configuration.siz: unknown key; did you mean"),
        ({"configuration": {"size": -1}}, "class: cannot be made: AssertionError: size is negativ"),
        ({"configuration": 5}, "configuration: input should be a valid dictionary"),
        ({"tiemout": 5}, "tiemout: unknown key; did you mean 'timeout'?"),
        ({"timeout": -1}, "timeout: input should be greater than or equal to 0"),
        ({"dependencies": ["chache"]}, "dependencies.0: there is no process or service 'chache'"),
        ({"dependencies": ["cache"]}, "dependencies: circular dependency: cache -> cache"),
        (
            {"dependencies": [{"name": "always", "condition": "completed"}]},
            "dependencies.always: 'always' never completes, for it is always restarted; give it",
        ),
    ],
)
def test_what_is_wrong_with_a_service_is_told_at_its_place(
    tmp_path: Path, module: str, entry: dict[str, Any], problem: str
) -> None:
    given = {"name": "cache", "class": "{m}:CacheService", "configuration": {"size": 1}, **entry}
    given["class"] = given["class"].format(m=module)
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"processes": [sleeper("always")], "services": [given]}))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}:1: services.cache.{problem.format(m=module)}")


def test_names_and_circles_are_looked_for_across_the_kinds(tmp_path: Path, module: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        dedent(f"""
        processes:
          - {{name: api, path: sleep, dependencies: [cache]}}
          - {{name: same, path: sleep}}
        services:
          - name: cache
            class: {module}:plain
            dependencies: [api]
          - {{name: same, class: "{module}:plain"}}
        """)
    )
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert [line.removeprefix(f"{path}:") for line in caught.value.lines] == [
        "3: processes.api.dependencies: circular dependency: api -> cache -> api",
        "9: services.same.name: there is already a process 'same'",
    ]


def test_problems_of_services_are_not_taken_for_those_of_processes(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("processes: [5]\nservices:\n- {}\n- {}\n- {name: s}\n")
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert [line.removeprefix(f"{path}:") for line in caught.value.lines] == [
        "1: processes.0: must be a mapping of keys to values",
        "3: services.0.class: is missing",
        "3: services.0.name: is missing",
        "4: services.1.class: is missing",
        "4: services.1.name: is missing",
        "5: services.s.class: is missing",
    ]


def test_a_manifest_needs_something_to_run(make: Make) -> None:
    with pytest.raises(ValueError, match="there is nothing to run"):
        make()


async def test_an_application_is_created_from_a_file_with_overrides(
    tmp_path: Path, module: str
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        f"services: [{{name: c, class: '{module}:CacheService', configuration: {{size: 1}}}}]\n"
    )
    app = await Application.create(path, version="7", stop_within_sec=3)
    assert app.status.version == "7"
    assert app.supervisor.stop_within_sec == 3
    assert list(app.services) == ["c"]
    bare = await Application.create()
    assert bare.config is None
    made = await Application.create(processes=[sleeper("p")])
    assert made.config is not None
    with pytest.raises(ManifestError, match="No such file"):
        await Application.create(tmp_path / "missing.yaml")
    with pytest.raises(ValueError, match="no plugin provides 'x'"):
        await (await Application.create(processes=[sleeper("p", stat_handlers=["x"])])).start()


async def test_requirements_of_processes_and_services_have_their_conditions(
    make: Make, module: str
) -> None:
    started = {"name": "p", "condition": "started"}
    manifest = make(
        {"name": "s", "class": f"{module}:plain", "dependencies": [started, "api"]},
        {"name": "s2", "class": f"{module}:plain"},
        processes=[
            sleeper("p"),
            sleeper("api", replicas=2),
            sleeper("q", dependencies=["s", {"name": "s2", "condition": "completed"}]),
        ],
    )
    assert [entry.name for entry in manifest.processes] == ["p", "api-0", "api-1", "q"]
    service = {entry.name: entry for entry in manifest.services}["s"]
    assert service.requirements == (
        Requirement("p", Condition.STARTED),
        Requirement("api-0"),
        Requirement("api-1"),
    )
    process = manifest.members_by_name()["q"][0]
    assert process.dependencies == ["s", "s2"]
    assert process.requirements == (
        Requirement("s"),
        Requirement("s2", Condition.COMPLETED),
    )
    assert Manifest.model_validate(manifest.model_dump()).model_dump() == manifest.model_dump()


async def test_a_pilot_alone_refuses_what_it_would_leave_out(make: Make, module: str) -> None:
    manifest = make({"name": "s", "class": f"{module}:plain"}, processes=[sleeper("p")])
    with pytest.raises(ValueError, match="has a service, too; run it as an Application"):
        ProcessPilot(manifest)


MAIN_TASK = """
import trio
from runtime import Application

async def works(*, task_status):
    task_status.started()
    try:
        print("works", flush=True)
        await trio.sleep_forever()
    finally:
        print("over", flush=True)

app = Application()
app.register_service(works)
trio.run(app.start)
"""


def test_an_interrupt_in_the_main_task_stops_the_tree_in_order() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", MAIN_TASK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "works\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert out == "over\n"
    assert "KeyboardInterrupt" in err
    assert program.returncode != 0
