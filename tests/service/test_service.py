"""Service: its configuration, its commands, its hooks and its errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import trio
from pydantic import ConfigDict, Field, SecretStr
from trio.testing import wait_all_tasks_blocked

from runtime.service import (
    ConfigurationError,
    NotRegisteredError,
    Service,
    ServiceConfiguration,
    ServiceFailedError,
    ServiceManager,
    ServiceState,
    service_unit,
)
from runtime.service.service import derive_name
from runtime.supervision._exceptions import (
    DuplicateUnitError,
    IllegalTransitionError,
    UnitFailedError,
    UnitNameError,
)
from runtime.supervision.graph import Requirement, Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import Unit, UnitHandle

pytestmark = pytest.mark.usefixtures("autojump_clock")
MakeTree = Callable[..., Any]
AFTER_LONG = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1000, max_delay_sec=1000)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "name"),
    [
        ("EchoService", "echo"),
        ("HTTPService", "http"),
        ("Echo", "echo"),
        ("cache_service", "cache"),
        ("Service", "service"),
        ("_Service", "_service"),
        ("ServiceBus", "servicebus"),
    ],
)
def test_a_name_is_that_of_the_class_without_service(made: str, name: str) -> None:
    assert derive_name(type(made, (), {})) == name


def test_a_service_has_the_name_it_is_given(kit: Any) -> None:
    assert kit.ScriptedService().name == "scripted"
    assert kit.ScriptedService("").name == "scripted"
    service = kit.ScriptedService("größe: 3 %s.x")
    assert service.name == "größe: 3 %s.x"
    assert service.logger.name == "runtime.services.größe: 3 %s.x"


async def test_odd_names_go_through_a_whole_life(kit: Any, tree: MakeTree) -> None:
    t = tree()
    names = ("größe", "a b", "%s {x}", "-", "a.b", "'")
    services = [t.add(kit.ScriptedService(name)) for name in names]
    async with t.running() as supervisor:
        for service in services:
            await service.start()
            service.set_error("100 %s {gone}")
            await supervisor.wait_until(service.name, Stage.FAILED)
            assert service.status.error == "100 %s {gone}"


def test_a_name_that_would_be_a_path_is_refused(kit: Any, tree: MakeTree) -> None:
    t = tree()
    for name in ("a/b", "/"):
        with pytest.raises(UnitNameError, match="cannot be the name of a unit") as caught:
            t.add(kit.ScriptedService(name))
        assert caught.value.name == name
    assert t.supervisor.names == []


def test_a_service_is_in_a_tree_once(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService())
    with pytest.raises(DuplicateUnitError):
        t.add(service)


# --- configuration -----------------------------------------------------------------------------


def test_a_new_service_is_initialized(kit: Any) -> None:
    service = kit.SizedService()
    assert service.status.model_dump() == {
        "state": "initialized",
        "error": None,
        "metadata": {},
        "is_configured": False,
    }
    assert service.config is None
    assert not service.can_start
    assert service.create_router() is None
    with pytest.raises(ConfigurationError, match="has no manager before it is configured"):
        _ = service.manager


def test_it_is_configured_by_a_mapping_or_a_model(kit: Any) -> None:
    service = kit.SizedService("cache")
    service.configure({"size": 3})
    assert service.config == kit.SizedConfiguration(size=3)
    first = service.manager
    config = kit.SizedConfiguration(size=4, enabled=False)
    service.configure(config)
    assert service.config is config
    assert service.manager is not first
    assert (service.is_enabled, service.can_start) == (False, True)
    status = service.status
    assert (status.state, status.is_configured) == ("configured", True)
    assert status.metadata == {"enabled": False, "autostart": False, "size": 4}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param({}, "service 'cache' cannot be configured so: size: Field required", id="no"),
        pytest.param({"size": "x"}, "size: Input should be a valid integer", id="wrong type"),
        pytest.param({"size": 1, "sice": 2}, "sice: Extra inputs are not permitted", id="unknown"),
        pytest.param({1: 2}, "size: Field required; 1: ", id="no name"),
        pytest.param(
            ServiceConfiguration(),
            "needs a SizedConfiguration or a mapping, not ServiceConfiguration",
            id="another model",
        ),
        pytest.param(None, "needs a SizedConfiguration or a mapping, not NoneType", id="nothing"),
        pytest.param([("size", 1)], "or a mapping, not list", id="a list"),
    ],
)
def test_a_configuration_that_does_not_fit_changes_nothing(
    kit: Any, config: Any, words: str
) -> None:
    service = kit.SizedService("cache")
    with pytest.raises(ConfigurationError) as caught:
        service.configure(config)
    assert words in str(caught.value)
    assert (service.status.state, service.config) == ("initialized", None)
    service.configure({"size": 3})
    manager = service.manager
    with pytest.raises(ConfigurationError):
        service.configure(config)
    assert (service.status.state, service.config.size) == ("configured", 3)
    assert service.manager is manager


def test_a_manager_that_cannot_be_made_changes_nothing(kit: Any) -> None:
    class Fragile(kit.SizedService):  # type: ignore[misc]
        def create_manager(self) -> ServiceManager:
            assert self.config is not None, "the configuration is there by then"
            if self.config.size == 0:
                raise OSError("no memory")
            return super().create_manager()  # type: ignore[no-any-return]

    service = Fragile()
    service.configure({"size": 1})
    manager = service.manager
    with pytest.raises(OSError, match="no memory"):
        service.configure({"size": 0})
    assert (service.config.size, service.status.metadata["size"]) == (1, 1)
    assert service.manager is manager


class SecretConfiguration(ServiceConfiguration):
    password: SecretStr
    others: dict[str, SecretStr] = Field(default={})


class SecretService(Service):
    configuration_class = SecretConfiguration

    def create_manager(self) -> ServiceManager:
        raise AssertionError("never started")


def test_secrets_are_masked(kit: Any) -> None:
    class Holder(kit.ScriptedService):  # type: ignore[misc]
        configuration_class = SecretConfiguration

    service = Holder()
    service.configure({"password": "hunter2", "others": {"a": "hunter3"}})
    assert service.config.password.get_secret_value() == "hunter2"
    shown = service.status.model_dump_json()
    assert "hunter" not in shown
    assert service.status.metadata["password"] == "**********"  # noqa: S105
    assert service.status.metadata["others"] == {"a": "**********"}


def test_what_was_wrong_with_a_secret_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SecretService().configure({"password": 1234567, "pasword": "hunter2"})
    error: BaseException | None = caught.value
    while error is not None:
        assert "1234567" not in str(error)
        assert "hunter2" not in str(error)
        error = error.__cause__


class OddConfiguration(ServiceConfiguration):
    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)
    on_event: Callable[[], None] = Field(default=print)
    key: bytes = b""


def test_a_configuration_that_is_no_json_can_be_shown_all_the_same(kit: Any) -> None:
    class Odd(kit.ScriptedService):  # type: ignore[misc]
        configuration_class = OddConfiguration

    service = Odd()
    service.configure({"key": b"text"})
    assert service.status.metadata["on_event"] == "builtin_function_or_method"
    service.configure({"key": b"\xff"})
    assert service.status.metadata == {}
    assert service.config.key == b"\xff"


def test_metadata_is_what_the_service_says(kit: Any) -> None:
    service = kit.ScriptedService()
    service.set_metadata({"hits": 1})
    assert service.status.metadata == {"hits": 1}
    service.status.metadata["hits"] += 1
    assert service.status.metadata == {"hits": 2}


async def test_it_is_not_configured_while_it_runs(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.SizedService("a", kit.Script(start_sec=1, stop_sec=1)))
    service.configure({"size": 1})
    async with t.running() as supervisor, trio.open_nursery() as nursery:
        for command, old in ((service.start, "starting"), (None, "running")):
            if command is not None:
                nursery.start_soon(command)
                await wait_all_tasks_blocked()
            else:
                await supervisor.wait_until("a", Stage.READY)
            with pytest.raises(IllegalTransitionError) as caught:
                service.configure({"size": 2})
            assert (caught.value.old, caught.value.new) == (old, "configured")
        nursery.start_soon(service.stop)
        await wait_all_tasks_blocked()
        with pytest.raises(IllegalTransitionError, match="stopping cannot become configured"):
            service.configure({"size": 2})
        await supervisor.wait_until("a", Stage.IDLE)
        assert service.config.size == 1
        service.configure({"size": 2})
        assert service.status.state == "configured"


async def test_it_is_not_configured_while_one_that_has_failed_still_stops(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.SizedService("a", kit.Script(stop_sec=1)))
    service.configure({"size": 1})
    async with t.running() as supervisor:
        await service.start()
        manager = service.manager
        service.set_error("gone")
        assert service.status.state == "error"
        with pytest.raises(ConfigurationError, match="has failed and still stops"):
            service.configure({"size": 2})
        assert service.manager is manager
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.script.log[-1] == "stopped"
        service.configure({"size": 2})
        assert service.status.state == "configured"
        assert supervisor.status("a").stage is Stage.IDLE
        await service.start()


# --- autostart ---------------------------------------------------------------------------------


async def test_autostart_starts_it_as_soon_as_it_is_configured(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.SizedService("a"))
    async with t.running() as supervisor:
        service.configure({"size": 1, "autostart": True})
        assert service.status.state == "configured"
        await supervisor.wait_until("a", Stage.READY)
        reasons = [event.reason for event in supervisor.why("a")]
        assert reasons == ["ready after 0.00 s", "starting", "configured to start by itself"]


async def test_autostart_is_remembered_until_there_is_a_tree(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = kit.SizedService("a")
    service.configure({"size": 1, "autostart": True})
    other = kit.SizedService("b")
    other.configure({"size": 1, "autostart": True})
    other.configure({"size": 1})  # changed its mind
    t.add(service)
    t.add(other)
    assert service.status.state == "configured"
    async with t.running():
        assert service.status.state == "running"
        assert other.status.state == "configured"


async def test_autostart_while_the_tree_stops_is_no_error(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.SizedService("a"))
    async with t.running() as supervisor:
        supervisor.ask_stop_tree("enough")
        service.configure({"size": 1, "autostart": True})
    assert service.status.state == "configured"


# --- commands ----------------------------------------------------------------------------------


async def test_start_and_stop_return_when_it_has_been_done(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(start_sec=2, stop_sec=3)))
    async with t.running():
        begin = trio.current_time()
        await service.start()
        assert (service.status.state, trio.current_time() - begin) == ("running", 2)
        await service.stop()
        assert (service.status.state, trio.current_time() - begin) == ("stopped", 5)
        assert service.script.seen_at_stop == [1]
        assert service.script.background == 0
        await service.start()
    assert service.script.log == ["start", "started", "stop", "stopped"] * 2
    assert t.moves("a") == ["starting", "running", "stopping", "stopped"] * 2


async def test_without_an_application_there_is_nobody_to_start_it(kit: Any) -> None:
    service = kit.ScriptedService("a")
    for command in (service.start, service.stop):
        with pytest.raises(NotRegisteredError, match="belongs to no application"):
            await command()
    assert service.status.state == "initialized"


async def test_once_removed_it_belongs_to_nobody(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.remove("a")
        t.add(kit.ScriptedService("a"))  # another one of the name
        with pytest.raises(NotRegisteredError):
            await service.start()
        with pytest.raises(NotRegisteredError):
            await service.stop()
        service.set_error("by itself")
        service.configure({"autostart": True})
        assert service.status.state == "configured"
        assert t.supervisor.unit("a").lifecycle.state == "initialized"
        service.attach(None)
        with pytest.raises(NotRegisteredError):
            await service.start()


async def test_unconfigured_it_does_not_start_and_says_why(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.SizedService("a"))
    async with t.running() as supervisor:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="'a' must be configured before"):
                await service.start()
            assert service.status.state == "error"
            assert service.status.error == "service 'a' must be configured before it is started"
        assert supervisor.status("a").generation == 0
        service.configure({"size": 1})
        assert service.status.error is None
        await service.start()


async def test_one_that_others_need_does_not_start_unconfigured_either(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.SizedService("a"))
    user = t.add(kit.ScriptedService("b"), requirements=[Requirement("a")])
    async with t.running() as supervisor:
        with pytest.raises(UnitFailedError, match="not started: a "):
            await user.start()
        assert "must be configured" in service.status.error
        assert isinstance(supervisor.status("a").error, ConfigurationError)
        assert t.moves("a") == ["error"]
        service.configure({"size": 1})
        await user.start()
        assert service.status.state == "running"


async def test_commands_that_the_table_forbids_change_nothing(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(start_sec=1, stop_sec=1)))

    async def refuse(command: Callable[[], Any], old: str, new: str) -> None:
        events = len(t.events("a"))
        with pytest.raises(IllegalTransitionError) as caught:
            await command()
        assert (caught.value.old, caught.value.new) == (old, new)
        assert service.status.state == old
        assert len(t.events("a")) == events

    async with t.running() as supervisor, trio.open_nursery() as nursery:
        await refuse(service.stop, "initialized", "stopping")
        nursery.start_soon(service.start)
        await wait_all_tasks_blocked()
        await refuse(service.start, "starting", "starting")
        await supervisor.wait_until("a", Stage.READY)
        await refuse(service.start, "running", "starting")
        nursery.start_soon(service.stop)
        await wait_all_tasks_blocked()
        await refuse(service.start, "stopping", "starting")
        await refuse(service.stop, "stopping", "stopping")
        await supervisor.wait_until("a", Stage.IDLE)
        await refuse(service.stop, "stopped", "stopping")
        service.configure({})
        await refuse(service.stop, "configured", "stopping")
    assert service.script.log.count("start") == 1


async def test_a_cancelled_command_stands(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(start_sec=3, stop_sec=3)))
    async with t.running() as supervisor:
        for command, stage in ((service.start, Stage.READY), (service.stop, Stage.IDLE)):
            with trio.move_on_after(1) as scope:
                await command()
            assert scope.cancelled_caught
            await supervisor.wait_until("a", stage)
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_start_that_waits_for_another_unit_can_be_taken_back(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    t.add(kit.ScriptedService("db", kit.Script(start_sec=1000)))
    service = t.add(kit.ScriptedService("a"), requirements=[Requirement("db")])
    async with t.running() as supervisor, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(UnitFailedError, match="stopped before it was started"):
                await service.start()

        nursery.start_soon(start)
        await supervisor.wait_until("a", Stage.WAITING)
        await service.stop()
        assert supervisor.status("a").stage is Stage.IDLE
        assert service.status.state == "initialized"
        await supervisor.stop_unit("db")
        await supervisor.wait_until("a", Stage.IDLE)
    assert t.moves("a") == []


async def test_one_that_has_failed_and_waits_for_its_restart_can_be_stopped(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"), restart=AFTER_LONG)
    async with t.running() as supervisor:
        await service.start()
        service.set_error("gone")
        await supervisor.wait_until("a", Stage.BACKOFF)
        begin = trio.current_time()
        await service.stop()
        assert (service.status.state, supervisor.status("a").stage) == ("stopped", Stage.IDLE)
        await trio.sleep(5000)
        assert service.status.state == "stopped"
        await service.start()
        service.set_error("gone")
        await supervisor.wait_until("a", Stage.BACKOFF)
        begin = trio.current_time()
        await service.start()  # does not wait for the restart either
        assert trio.current_time() == begin
    last = ["error", "stopping", "stopped"]
    assert t.moves("a")[:5] == ["starting", "running", *last]


async def test_one_that_has_completed_and_waits_for_its_restart_can_be_stopped(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"), restart=AFTER_LONG)
    async with t.running() as supervisor:
        await service.start()
        service.manager.finish()
        await supervisor.wait_until("a", Stage.BACKOFF)
        assert service.status.state == "stopped"
        await service.stop()
        await trio.sleep(5000)
        assert supervisor.status("a").stage is Stage.IDLE
        assert supervisor.status("a").generation == 1


async def test_one_that_has_failed_for_good_can_be_stopped_and_started(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a"))
    async with t.running() as supervisor:
        await service.start()
        service.set_error("gone")
        await supervisor.wait_until("a", Stage.FAILED)
        await service.stop()
        assert (service.status.state, service.status.error) == ("stopped", None)
        assert supervisor.status("a").stage is Stage.IDLE
        await service.start()
        assert supervisor.status("a").generation == 2


async def test_a_start_is_not_lost_on_one_that_fails_at_that_moment(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=1)))
    async with t.running() as supervisor:
        await service.start()
        service.set_error("gone")
        assert supervisor.status("a").stage is Stage.STOPPING
        await service.start()
        assert service.status.state == "running"
        assert supervisor.status("a").generation == 2
        assert service.script.log == ["start", "started", "stop", "stopped", "start", "started"]
        assert [e.reason for e in supervisor.why("a")][-1] == "asked to start"


async def test_a_failing_start_raises_what_it_has_raised(kit: Any, tree: MakeTree) -> None:
    cause, context = OSError("no disk"), KeyError("context")
    error = RuntimeError("failed to initialize")
    error.__cause__, error.__context__ = cause, context
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(start_error=error)))
    async with t.running() as supervisor:
        with pytest.raises(RuntimeError) as caught:
            await service.start()
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (cause, context)
        assert (service.status.state, service.status.error) == ("error", "failed to initialize")
        assert supervisor.status("a").stage is Stage.FAILED
        assert t.moves("a") == ["starting", "error"]
        assert service.script.log == ["start"]
        assert service.script.background == 0
        service.script.start_error = None
        await service.start()
        assert service.status.error is None


async def test_what_an_earlier_generation_raised_is_not_raised_again(
    kit: Any, tree: MakeTree
) -> None:
    t = tree()
    db = t.add(kit.ScriptedService("db", kit.Script(start_error=OSError("no disk"))))
    service = t.add(kit.ScriptedService("a", kit.Script(start_error=ValueError("old"))))
    user = t.add(kit.ScriptedService("b"), requirements=[Requirement("db")])
    async with t.running() as supervisor:
        with pytest.raises(ValueError, match="old"):
            await service.start()
        with pytest.raises(UnitFailedError, match="not started: db no disk"):
            await user.start()
        supervisor.ask_stop_tree("enough")
        with pytest.raises(UnitFailedError, match="the tree stops: enough"):
            await service.start()
    assert db.status.error == "no disk"


async def test_a_start_waits_for_the_restarts_of_its_policy(kit: Any, tree: MakeTree) -> None:
    t = tree()
    policy = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=1, max_restarts=2)
    service = t.add(
        kit.ScriptedService("a", kit.Script(start_error=OSError("no disk"))), restart=policy
    )
    async with t.running() as supervisor:
        with pytest.raises(OSError, match="no disk"):
            await service.start()
        assert supervisor.status("a").generation == 3
        assert supervisor.status("a").reason == "no disk; given up after 2 restarts in 3.0 s"
        reasons = [event.reason for event in t.events("a") if event.kind != "asked"]
        verdicts = ("restart in 1 s", "restart in 2 s", "given up after 2 restarts in 3.0 s")
        assert reasons == [
            line for verdict in verdicts for line in ("starting", "no disk", verdict)
        ]
        with trio.move_on_after(0.5):
            await service.start()
        service.script.start_error = None
        await supervisor.wait_until("a", Stage.READY)


async def test_configure_and_start(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.SizedService("a"))
    async with t.running():
        assert await service.configure_and_start({"size": 1}) is service
        assert service.status.state == "running"
        with pytest.raises(IllegalTransitionError):
            await service.configure_and_start({"size": 1})


# --- hooks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("telling", [False, True])
async def test_a_subclass_may_do_more_before_and_after(
    kit: Any, tree: MakeTree, *, telling: bool
) -> None:
    class More(kit.TellingService if telling else kit.ScriptedService):  # type: ignore[misc]
        by: ClassVar[list[str]] = []

        async def start(self) -> None:
            self.by.append(trio.lowlevel.current_task().name if not telling else "unit a")
            self.script.log.append("before")
            await trio.sleep(1)
            await super().start()
            self.script.log.append("behind")

        async def stop(self) -> None:
            self.by.append(trio.lowlevel.current_task().name)
            self.script.log.append("before stop")
            await super().stop()
            self.script.log.append("behind stop")

    t = tree()
    service = t.add(More("a"))
    async with t.running() as supervisor:
        # Whoever asks for it, all of it is done once, and by the unit.
        for start, stop in (
            (service.start, service.stop),
            (partial(supervisor.start_unit, "a"), partial(supervisor.stop_unit, "a")),
        ):
            await start()
            await stop()
    assert set(service.by) == {"unit a"}
    log = [line for line in service.script.log if line not in ("goes on", "went on")]
    stopped = ["before stop", "stop", "stopped", "behind stop"]
    started = ["before", "start", "started", "behind"]
    if telling:  # it goes on, until it is cancelled behind the stop
        started.remove("behind")
    assert log == (started + stopped) * 2


async def test_what_overrides_may_come_from_a_mixin_and_in_layers(kit: Any, tree: MakeTree) -> None:
    class Mixin:
        async def start(self) -> None:
            self.script.log.append("mixin")  # type: ignore[attr-defined]
            await super().start()  # type: ignore[misc]

    class Lower(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            """Start from below."""
            self.script.log.append("lower")
            await super().start()

    class Mixed(Mixin, Lower):
        pass

    class Upper(Mixed):
        async def start(self) -> None:
            self.script.log.append("upper")
            await super().start()

    t = tree()
    services = [t.add(Mixed("a")), t.add(Upper("b"))]
    async with t.running():
        for service in services:
            await service.start()
    assert services[0].script.log[:4] == ["mixin", "lower", "start", "started"]
    assert services[1].script.log[:5] == ["upper", "mixin", "lower", "start", "started"]
    assert Lower.start.__doc__ == "Start from below."


async def test_a_failure_of_an_override_is_raised_where_it_was_asked_for(
    kit: Any, tree: MakeTree
) -> None:
    error = LookupError("no license")

    class Checks(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            raise error

    t = tree()
    service = t.add(Checks("a"))
    async with t.running():
        with pytest.raises(LookupError) as caught:
            await service.start()
        assert caught.value is error
        assert service.status.error == "no license"
    assert service.script.log == []


async def test_a_subclass_may_do_without_the_manager(kit: Any, tree: MakeTree) -> None:
    class Alone(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            self.script.log.append("my start")

        async def stop(self) -> None:
            self.script.log.append("my stop")

    t = tree()
    service = t.add(Alone("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.READY)
        await supervisor.stop_unit("a")
        assert service.status.state == "stopped"
    assert service.script.log == ["my start", "my stop"]


async def test_a_second_call_of_the_base_does_not_start_the_manager_twice(
    kit: Any, tree: MakeTree
) -> None:
    class Twice(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()
            await super().start()

    t = tree()
    service = t.add(Twice("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error.startswith("a: starting cannot become starting")
    # What the manager had taken was let go, with its tasks still there.
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert service.script.seen_at_stop == [1]
    assert t.moves("a") == ["starting", "error"]


async def test_a_second_call_of_the_base_does_not_stop_the_manager_twice(
    kit: Any, tree: MakeTree
) -> None:
    class Twice(kit.ScriptedService):  # type: ignore[misc]
        async def stop(self) -> None:
            await super().stop()
            await super().stop()

    t = tree()
    service = t.add(Twice("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.stop_unit("a")
        assert service.status.error.startswith("a: stopping cannot become stopping")
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_subclass_may_try_the_base_again_after_a_failure(kit: Any, tree: MakeTree) -> None:
    class Stubborn(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except OSError:
                self.script.start_error = None
                await super().start()

    t = tree()
    service = t.add(Stubborn("a", kit.Script(start_error=OSError("busy"), background_tasks=0)))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.READY)
    assert service.script.log == ["start", "start", "started", "stop", "stopped"]


async def test_what_fails_behind_the_manager_stops_the_manager(kit: Any, tree: MakeTree) -> None:
    class Fails(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()
            raise LookupError("behind")

    t = tree()
    service = t.add(Fails("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "behind"
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert service.script.seen_at_stop == [1]


async def test_a_start_may_start_another_service_and_a_stop_stop_it(
    kit: Any, tree: MakeTree
) -> None:
    class Leads(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await other.start()
            await super().start()

        async def stop(self) -> None:
            await super().stop()
            await other.stop()

    t = tree()
    other = t.add(kit.ScriptedService("other"))
    service = t.add(Leads("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.READY)
        assert other.status.state == "running"
        await supervisor.stop_unit("a")
        assert other.status.state == "stopped"
    assert service.script.log == other.script.log == ["start", "started", "stop", "stopped"]


async def test_a_stop_asked_for_within_its_own_start_ends_that(kit: Any, tree: MakeTree) -> None:
    class Hesitates(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await self.stop()

    t = tree()
    service = t.add(Hesitates("a"))
    async with t.running() as supervisor:
        with pytest.raises(UnitFailedError, match="a did not become ready: stopped"):
            await supervisor.start_unit("a")
        assert service.status.state == "stopped"
    assert service.script.log == []
    assert t.moves("a") == ["starting", "stopping", "stopped"]


async def test_background_tasks_call_start_and_stop_like_anybody_else(
    kit: Any, tree: MakeTree
) -> None:
    refused: list[Exception] = []

    class Restless(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            # Before the base is called: the announced call is still to come.
            self.manager.nursery.start_soon(self.disturb)
            await trio.sleep(1)
            await super().start()

        async def stop(self) -> None:
            self.manager.nursery.start_soon(self.disturb)
            await trio.sleep(1)
            await super().stop()

        async def disturb(self) -> None:
            commands = [self.start]
            if self.status.state == "stopping":
                commands.append(self.stop)
            for command in commands:
                try:
                    await command()
                except IllegalTransitionError as error:
                    refused.append(error)

    t = tree()
    service = t.add(Restless("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.READY)
        await supervisor.stop_unit("a")
    assert [str(error).partition(" (")[0] for error in refused] == [
        "a: starting cannot become starting",
        "a: stopping cannot become starting",
        "a: stopping cannot become stopping",
    ]
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_background_task_may_stop_its_own_service(kit: Any, tree: MakeTree) -> None:
    class Leaves(kit.ScriptedManager):  # type: ignore[misc]
        async def work(self) -> None:
            await trio.sleep(1)
            await service.stop()
            raise AssertionError("it is cancelled before that returns")

    class Leaving(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Leaves

    t = tree()
    service = t.add(Leaving("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("a", Stage.IDLE)
        assert service.status.state == "stopped"
    assert service.script.log == ["start", "started", "stop", "stopped"]


async def test_a_background_task_may_restart_another_service(kit: Any, tree: MakeTree) -> None:
    class Kicks(kit.ScriptedManager):  # type: ignore[misc]
        async def work(self) -> None:
            await other.stop()
            await other.start()
            self.script.log.append("kicked")

    class Kicking(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Kicks

    t = tree()
    other = t.add(kit.ScriptedService("other"))
    service = t.add(Kicking("a"))
    async with t.running():
        await other.start()
        await service.start()
        await wait_all_tasks_blocked()
        assert other.script.log == ["start", "started", "stop", "stopped", "start", "started"]
        assert service.script.log == ["start", "started", "kicked"]


# --- set_error ---------------------------------------------------------------------------------


async def test_set_error_on_one_that_was_never_started(
    kit: Any, tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    alone = kit.ScriptedService("alone")
    alone.set_error("a")
    assert (alone.status.state, alone.status.error) == ("error", "a")
    t = tree()
    service = t.add(kit.ScriptedService("a"))
    service.set_error("first 100 %")
    service.set_error("second")
    assert (service.status.state, service.status.error) == ("error", "second")
    assert t.moves("a") == ["error", "error"]
    assert t.supervisor.status("a").reason == "second"
    assert ("runtime.services.a", logging.ERROR, "first 100 %") in caplog.record_tuples
    async with t.running():
        await service.start()
        assert (service.status.state, service.status.error) == ("running", None)


async def test_set_error_ends_one_that_runs(kit: Any, tree: MakeTree) -> None:
    t = tree()
    service = t.add(kit.ScriptedService("a", kit.Script(stop_sec=1)))
    other = t.add(kit.ScriptedService("b"))
    async with t.running() as supervisor:
        await other.start()
        await service.start()
        service.set_error("gone")
        service.set_error("really")  # told, but the first one counts
        assert (service.status.state, service.status.error) == ("error", "gone")
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "gone"
        status = supervisor.status("a")
        assert isinstance(status.error, ServiceFailedError)
        assert (str(status.error), status.error.name, status.reason) == ("gone", "a", "gone")
        assert "really" in [event.reason for event in t.events("a")]
        assert other.status.state == "running"
    assert t.moves("a") == ["starting", "running", "error"]
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert service.script.seen_at_stop == [1]


@pytest.mark.parametrize("telling", [False, True])
async def test_set_error_within_a_start_ends_it(kit: Any, tree: MakeTree, *, telling: bool) -> None:
    class Doubts(kit.TellingService if telling else kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            self.set_error("in doubt")
            await super().start()

    t = tree()
    service = t.add(Doubts("a", kit.Script(start_sec=1)))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "in doubt"
    assert service.script.log == ["start"]
    assert t.moves("a") == ["starting", "error"]


async def test_set_error_in_the_last_moment_of_a_start(kit: Any, tree: MakeTree) -> None:
    class Doubts(kit.ScriptedService):  # type: ignore[misc]
        async def start(self) -> None:
            await super().start()
            self.set_error("in doubt")

    t = tree()
    service = t.add(Doubts("a"))
    async with t.running() as supervisor:
        supervisor.ask_start("a")
        await supervisor.wait_until("a", Stage.FAILED)
    assert service.script.log == ["start", "started", "stop", "stopped"]
    assert service.script.seen_at_stop == [1]


async def test_set_error_from_a_background_task(kit: Any, tree: MakeTree) -> None:
    class Watches(kit.ScriptedManager):  # type: ignore[misc]
        async def work(self) -> None:
            await trio.sleep(1)
            service.set_error("lost the master")
            await super().work()

    class Watching(kit.ScriptedService):  # type: ignore[misc]
        manager_class = Watches

    t = tree()
    service = t.add(Watching("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "lost the master"
    assert service.script.seen_at_stop == [1]


async def test_set_error_within_a_stop(kit: Any, tree: MakeTree) -> None:
    class Loses(kit.ScriptedService):  # type: ignore[misc]
        async def stop(self) -> None:
            await super().stop()
            self.set_error("lost two lines")

    t = tree()
    service = t.add(Loses("a"))
    async with t.running() as supervisor:
        await service.start()
        await supervisor.stop_unit("a")
        assert (service.status.state, service.status.error) == ("error", "lost two lines")
        assert supervisor.status("a").reason == "stopped, but lost two lines"
    assert t.moves("a") == ["starting", "running", "stopping", "error"]


async def test_an_override_of_set_error_hears_of_every_failure(kit: Any, tree: MakeTree) -> None:
    heard: list[str] = []

    class Pager(kit.ScriptedService):  # type: ignore[misc]
        def set_error(self, error: str) -> None:
            heard.append(error)
            super().set_error(error)

    t = tree()
    service = t.add(Pager("a", kit.Script(start_error=OSError("no disk"))))
    async with t.running() as supervisor:
        with pytest.raises(OSError, match="no disk"):
            await service.start()
        service.script.start_error = None
        await service.start()
        service.script.crash(ValueError("boom"))
        await supervisor.wait_until("a", Stage.FAILED)
        service.script.stop_error = KeyError("x")
        service.script.deaths.clear()
        await service.start()
        await service.stop()
    assert heard == ["no disk", "a background task died: ValueError: boom", "'x'"]


@pytest.mark.parametrize("raises", [False, True])
async def test_an_override_of_set_error_cannot_hide_a_failure(
    kit: Any, tree: MakeTree, *, raises: bool
) -> None:
    class Mute(kit.ScriptedService):  # type: ignore[misc]
        def set_error(self, error: str) -> None:
            if raises:
                raise LookupError("no pager")

    t = tree()
    service = t.add(Mute("a"))
    async with t.running() as supervisor:
        await service.start()
        service.script.crash(ValueError("boom"))
        await supervisor.wait_until("a", Stage.FAILED)
        assert service.status.error == "a background task died: ValueError: boom"
        told = "set_error failed: no pager" in [event.reason for event in t.events("a")]
        assert told is raises


# --- two trees ---------------------------------------------------------------------------------


async def test_a_service_in_two_trees_lives_once(kit: Any, tree: MakeTree) -> None:
    one, other = tree(), tree()
    service = one.add(kit.ScriptedService("a", kit.Script(stop_sec=1)))
    other.add(service)
    async with one.running() as first, other.running() as second:
        first.ask_start("a")
        await first.wait_until("a", Stage.READY)
        with pytest.raises(UnitFailedError, match="running cannot become starting"):
            await second.start_unit("a")
        assert service.status.state == "running"
        service.set_error("gone")  # now its state would allow a start
        with pytest.raises(UnitFailedError, match="runs already, in another tree"):
            await second.start_unit("a")
        await first.wait_until("a", Stage.FAILED)
        assert service.script.log == ["start", "started", "stop", "stopped"]
        await second.start_unit("a")


async def test_services_and_other_units_wait_for_each_other(kit: Any, tree: MakeTree) -> None:
    log: list[str] = []

    async def body(*, task_status: UnitHandle) -> None:
        task_status.started()
        log.append(f"db sees {service.status.state}")
        await trio.sleep_forever()

    t = tree()
    t.supervisor.add(Unit(name="db", body=body))
    service = t.add(kit.ScriptedService("a"), requirements=[Requirement("db")], autostart=True)
    async with t.running() as supervisor:
        assert isinstance(supervisor, Supervisor)
        assert supervisor.status("a").kind == "service"
        assert service.status.state is ServiceState.RUNNING
    assert log == ["db sees initialized"]


def test_a_unit_of_a_service_says_how_it_runs(kit: Any) -> None:
    unit = service_unit(kit.ScriptedService("a"), restart_dependents=True)
    assert (unit.kind, unit.autostart, unit.restart_dependents) == ("service", False, True)
    assert unit.restart.when is RestartWhen.NEVER
