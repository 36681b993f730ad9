"""One service in a running tree, against a small model of it, in any order of what may happen.

The tree runs in a thread of its own, on a clock that stands still until a rule lets time pass.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.service import ConfigurationError, NotRegisteredError, ServiceState
from runtime.service._state import SERVICE_TABLE
from runtime.supervision._exceptions import IllegalTransitionError
from runtime.supervision.graph import Stage
from runtime.supervision.restart import RestartPolicy, RestartWhen

S = ServiceState
SLOW_START, SLOW_STOP, DELAY = 4, 3, 6
POLICY = RestartPolicy(when=RestartWhen.FAILURE, delay_sec=DELAY, factor=1)
UNCONFIGURED = "service 'a' must be configured before it is started"
DIED = "a background task died: ValueError: boom"


class Loop:
    """A Trio loop in another thread, in which the test calls functions."""

    def __init__(self) -> None:
        self.clock = MockClock()
        self._begun, self._over = threading.Event(), trio.Event()
        run = partial(trio.run, self._main, clock=self.clock)
        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self._begun.wait(10)

    async def _main(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self.nursery:
            self._begun.set()
            await self._over.wait()
            self.nursery.cancel_scope.cancel()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call *function*, in a task of its own if it is async, and let all go as far as it can."""

        async def act() -> Any:
            result = function()
            if isinstance(result, Awaitable):
                self.nursery.start_soon(self._await, result)
            await wait_all_tasks_blocked()
            return result

        return trio.from_thread.run(act, trio_token=self.token)

    @staticmethod
    async def _await(awaitable: Awaitable[Any]) -> None:
        await awaitable

    def pass_second(self) -> None:
        self.call(lambda: self.clock.jump(1))

    def close(self) -> None:
        trio.from_thread.run_sync(self._over.set, trio_token=self.token)
        self._thread.join(10)
        assert not self._thread.is_alive()


class Model:
    """What the service has to be, told as simply as it can be."""

    def __init__(self) -> None:
        self.now = 0
        self.state = S.INITIALIZED
        self.configured = False
        self.error: str | None = None
        self.registered = True
        self.start_sec = self.stop_sec = 0
        self.start_fails = self.stop_fails = False
        self.live = False  # a generation is there
        self.manager = False  # its manager has started
        self.until: int | None = None  # the end of the start or stop that is under way
        self.stop_asked = self.again = self.bereft = self.dead = False
        self.restart_at: int | None = None

    # What time brings.

    def pass_second(self) -> None:
        self.now += 1
        if self.until is not None and self.until <= self.now:
            self.arrive()
        elif self.restart_at is not None and self.restart_at <= self.now:
            self.begin()

    def begin(self) -> None:
        self.state, self.error, self.restart_at = S.STARTING, None, None
        self.live, self.manager = True, False
        self.stop_asked = self.again = self.bereft = self.dead = False
        self.until = self.now + self.start_sec
        if not self.start_sec:
            self.arrive()

    def arrive(self) -> None:
        self.until = None
        if self.state is S.STARTING:
            if self.start_fails:
                self.fail("no disk")
                self.end()
            else:
                self.state, self.manager = S.RUNNING, True
        else:
            self.manager = False
            if self.stop_fails:
                self.fail("busy")
            if self.dead:
                self.fail(DIED)
            self.end()

    def fail(self, words: str) -> None:
        if self.error is None:
            self.state, self.error = S.ERROR, words

    def end(self) -> None:
        self.live = False
        self.state = S.STOPPED if self.error is None else S.ERROR
        if self.again:
            self.begin()
        elif self.error is not None and not self.stop_asked:
            self.restart_at = self.now + DELAY

    def stop_manager(self) -> None:
        self.until = self.now + self.stop_sec
        if not self.stop_sec:
            self.arrive()

    # What is asked for, or befalls it.

    def ask_start(self) -> None:
        if self.live:
            self.again = True
        else:
            self.begin()

    def ask_stop(self) -> None:
        self.restart_at, self.again = None, False
        if not self.live or self.stop_asked:
            return
        self.stop_asked = True
        before, self.state = self.state, S.STOPPING
        if before is S.STARTING:
            self.until = None
            self.end()
        elif before is S.RUNNING:
            self.stop_manager()

    def lose(self, words: str) -> None:
        """Fail while it is live."""
        before = self.state
        self.fail(words)
        if before is S.STARTING:
            self.until = None
            self.end()
        elif before is S.RUNNING:
            self.stop_manager()


class ServiceMachine(RuleBasedStateMachine):
    kit: Any
    make_tree: Any

    @initialize()
    def open(self) -> None:
        self.loop = Loop()
        self.model = Model()
        self.tree = self.make_tree()
        self.service = self.kit.SizedService("a", self.kit.Script())
        self.scope = trio.CancelScope()
        self.loop.call(self.add_to_tree)
        self.loop.call(self.run_tree)

    def add_to_tree(self) -> None:
        self.registered_at = self.tree.supervisor.events.last
        self.tree.add(self.service, restart=POLICY)

    async def run_tree(self) -> None:
        with self.scope:
            await self.tree.supervisor.run()

    def command(self, command: Callable[[], Awaitable[None]]) -> BaseException | None:
        """Call a command; return what it has raised, if it is over by now."""
        raised: list[BaseException] = []

        async def act() -> None:
            try:
                await command()
            except Exception as error:  # noqa: BLE001 - whatever it is is looked at
                raised.append(error)

        self.loop.call(act)
        return raised[0] if raised else None

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.loop.pass_second()
            self.model.pass_second()

    # --- what is varied ------------------------------------------------------------------------

    @rule(slow=st.booleans(), fails=st.booleans())
    def let_starts_be(self, *, slow: bool, fails: bool) -> None:
        script, model = self.service.script, self.model
        if model.state is S.STARTING:
            return
        script.start_sec = model.start_sec = SLOW_START if slow else 0
        script.start_error, model.start_fails = OSError("no disk") if fails else None, fails

    @rule(slow=st.booleans(), fails=st.booleans())
    def let_stops_be(self, *, slow: bool, fails: bool) -> None:
        script, model = self.service.script, self.model
        if model.live and model.until is not None and model.state is not S.STARTING:
            return
        script.stop_sec = model.stop_sec = SLOW_STOP if slow else 0
        script.stop_error, model.stop_fails = OSError("busy") if fails else None, fails

    # --- what is asked for ---------------------------------------------------------------------

    @rule()
    def start(self) -> None:
        model = self.model
        error = self.command(self.service.start)
        if not model.registered:
            assert isinstance(error, NotRegisteredError)
        elif not model.configured:
            assert isinstance(error, ConfigurationError)
            model.state, model.error = S.ERROR, UNCONFIGURED
        elif S.STARTING in SERVICE_TABLE.successors(model.state):
            assert not isinstance(error, IllegalTransitionError)
            model.ask_start()
        else:
            assert isinstance(error, IllegalTransitionError)
            assert (error.old, error.new) == (model.state, "starting")

    @rule()
    def stop(self) -> None:
        model = self.model
        error = self.command(self.service.stop)
        waits = model.restart_at is not None
        if not model.registered:
            assert isinstance(error, NotRegisteredError)
        elif waits or S.STOPPING in SERVICE_TABLE.successors(model.state):
            assert error is None
            acknowledged = model.state is S.ERROR and not model.live
            model.ask_stop()
            if acknowledged:
                model.state, model.error = S.STOPPED, None
        else:
            assert isinstance(error, IllegalTransitionError)
            assert (error.old, error.new) == (model.state, "stopping")

    @rule(size=st.integers() | st.just("x"), autostart=st.booleans())
    def configure(self, size: int | str, *, autostart: bool) -> None:
        model = self.model
        before = self.service.config

        def configure() -> Exception | None:
            try:
                self.service.configure({"size": size, "autostart": autostart})
            except (ConfigurationError, IllegalTransitionError) as error:
                return error
            return None

        error = self.loop.call(configure)
        if size == "x" or (model.live and model.state is S.ERROR):
            assert isinstance(error, ConfigurationError)
        elif S.CONFIGURED not in SERVICE_TABLE.successors(model.state):
            assert isinstance(error, IllegalTransitionError)
            assert (error.old, error.new) == (model.state, "configured")
        else:
            assert error is None
            model.state, model.error, model.configured = S.CONFIGURED, None, True
            if autostart and model.registered:
                model.ask_start()
            return
        assert self.service.config is before

    # --- what befalls it -----------------------------------------------------------------------

    @rule(words=st.sampled_from(["gone", "lost"]))
    def set_error(self, words: str) -> None:
        model = self.model
        self.loop.call(lambda: self.service.set_error(words))
        if model.live:
            model.lose(words)
        else:
            model.state, model.error = S.ERROR, words

    @rule()
    @precondition(lambda self: self.service.script.background)
    def crash(self) -> None:
        model = self.model
        model.bereft = True
        self.loop.call(lambda: self.service.script.crash(ValueError("boom")))
        if model.state in (S.STARTING, S.RUNNING):
            model.lose(DIED)
        else:
            model.dead = True  # it is stopping already, which goes on

    @rule(seconds=st.integers(1, 7))
    def pass_time(self, seconds: int) -> None:
        self.wait(seconds)

    @rule()
    @precondition(lambda self: self.model.registered)
    def restart(self) -> None:
        """Ask the supervisor, who asks nobody whether that is legal."""
        model = self.model
        if not model.configured or model.live:
            return
        self.loop.call(lambda: self.tree.supervisor.ask_restart("a"))
        model.begin()

    @rule()
    @precondition(lambda self: self.model.registered)
    def remove(self) -> None:
        self.loop.call(lambda: self.tree.supervisor.remove("a"))
        self.model.ask_stop()
        self.wait(SLOW_STOP)
        assert self.tree.supervisor.names == []
        self.model.registered = False

    @rule()
    @precondition(lambda self: not self.model.registered)
    def add(self) -> None:
        self.loop.call(self.add_to_tree)
        self.model.registered = True
        config = self.service.config
        if self.model.state is S.CONFIGURED and config is not None and config.autostart:
            self.model.ask_start()

    @rule()
    def cancel_the_tree_and_run_it_again(self) -> None:
        self.loop.call(self.scope.cancel)
        self.model.ask_stop()
        self.wait(SLOW_STOP)
        assert self.scope.cancelled_caught
        assert not self.tree.supervisor.running
        self.scope = trio.CancelScope()
        self.loop.call(self.run_tree)

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def is_as_the_model_says(self) -> None:
        model, status, script = self.model, self.service.status, self.service.script
        told = (status.state, status.is_configured, status.error)
        error = model.error if model.state is S.ERROR else None
        assert told == (model.state, model.configured, error)
        assert self.service.is_live is model.live
        assert script.live == model.manager
        assert script.background == (model.live and not model.bereft)

    @invariant()
    def its_history_is_legal_and_every_end_has_a_reason(self) -> None:
        self.tree.moves("a", after=self.registered_at)  # what happens in between nobody records
        if self.model.registered:
            status = self.tree.supervisor.status("a")
            assert (status.stage is Stage.BACKOFF) is (self.model.restart_at is not None)
            assert status.reason

    def teardown(self) -> None:
        try:
            self.loop.call(self.scope.cancel)
            for _ in range(SLOW_STOP):
                self.loop.pass_second()
            script = self.service.script
            assert (script.live, script.background) == (0, 0)
            assert script.log.count("stop") == script.log.count("started")
            assert self.scope.cancelled_caught
        finally:
            self.loop.close()


def test_one_service_against_a_model(kit: Any, tree: Any) -> None:
    class Machine(ServiceMachine):
        pass

    Machine.kit, Machine.make_tree = kit, tree
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
