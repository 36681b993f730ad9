"""Random graphs and random events, against a small model of who may be stopped, and when.

The bodies are the witnesses: each writes down when it is entered, told to stop, and down. The model
knows from the plan alone whose stop an event explains; whatever else is stopped is a violation, and
so is what should have been and was not. Hypothesis seeds Trio's scheduler, too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import hypothesis.strategies as st
import trio
from hypothesis import HealthCheck, given, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.supervision._exceptions import SupervisionError
from runtime.supervision.events import EventKind, UnitEvent
from runtime.supervision.graph import Condition, Requirement, Stage
from runtime.supervision.restart import GroupStrategy, RestartPolicy, RestartWhen
from runtime.supervision.supervisor import Supervisor
from runtime.supervision.unit import UNIT_TABLE, Unit, UnitHandle

STOP_WITHIN = 10
OVER = (Stage.COMPLETED, Stage.FAILED, Stage.HELD)
NESTED = "nest"
Life = tuple[str, int]  # a unit and its generation


@dataclass(frozen=True)
class Plan:
    """What one unit is; *needs* are places in the list of plans before it."""

    needs: tuple[tuple[int, Condition], ...] = ()
    when: RestartWhen = RestartWhen.ALWAYS
    delay_sec: float = 0
    max_restarts: int | None = None
    restart_dependents: bool = False
    ends_tree: bool = False
    autostart: bool = True
    ready_at_once: bool = True
    clear_sec: float = 0  # between a crash and its end
    stop_sec: float = 0


@dataclass(frozen=True)
class Event:
    """Something that happens to the unit at *place*; after it *ticks* pass, or all settles."""

    what: str
    place: int = 0
    ticks: int | None = None


@dataclass(frozen=True)
class Scenario:
    plans: list[Plan]
    group: list[int]
    strategy: GroupStrategy
    nested: bool
    events: list[Event]


rarely = st.sampled_from([True, False, False, False])
plans = st.builds(
    Plan,
    needs=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(Condition)), max_size=2).map(tuple),
    when=st.sampled_from(RestartWhen),
    delay_sec=st.sampled_from([0, 0, 2]),
    max_restarts=st.sampled_from([None, None, 1]),
    restart_dependents=rarely,
    ends_tree=st.sampled_from([True, *[False] * 9]),
    autostart=st.sampled_from([True, True, True, False]),
    ready_at_once=st.sampled_from([True, True, False]),
    clear_sec=st.sampled_from([0, 0, 3]),
    stop_sec=st.sampled_from([0, 0, 2, 50]),
)
WHAT = [
    *("ready", "crash", "crash", "crash", "finish", "start", "stop", "restart", "restart"),
    *("second", "minute", "add", "remove", "stop tree", "cancel run"),
]
events = st.builds(
    Event,
    what=st.sampled_from(WHAT),
    place=st.integers(0, 6),
    ticks=st.sampled_from([None, None, None, 0, 1, 3, 7]),
)
scenarios = st.builds(
    Scenario,
    plans=st.lists(plans, min_size=1, max_size=6),
    group=st.lists(st.integers(0, 5), max_size=4, unique=True),
    strategy=st.sampled_from(GroupStrategy),
    nested=rarely,
    events=st.lists(events, max_size=14),
)


class BoomError(Exception):
    """How a body crashes."""


class Body:
    """A body that does what it is told, and tells the world what happens to it."""

    def __init__(self, world: World, name: str, plan: Plan) -> None:
        self.world, self.name, self.plan = world, name, plan
        self.lives = 0
        self.generation = 0
        self.said_ready = self.told_to_stop = self.ending = False
        self.orders: list[str] = []
        self.bell = trio.Event()

    def tell(self, order: str) -> None:
        self.orders.append(order)
        self.bell.set()

    async def __call__(self, *, task_status: UnitHandle) -> None:
        self.lives += 1
        self.generation += 1
        self.said_ready = self.told_to_stop = self.ending = False
        self.orders, self.bell = ["ready"] if self.plan.ready_at_once else [], trio.Event()
        self.world.note_entry(self)
        try:
            await self._obey(task_status)
            self.world.ended.append((self.name, self.generation))
        except BoomError:
            self.world.ended.append((self.name, self.generation))
            raise
        except trio.Cancelled:
            self.told_to_stop = True
            self.world.note_stop(self)
            with task_status.budget.polite(None):
                await trio.sleep(self.plan.stop_sec)
            raise
        finally:
            self.lives -= 1

    async def _obey(self, unit: UnitHandle) -> None:
        while True:
            for order in self.orders:
                if order == "ready" and not self.said_ready:
                    self.said_ready = True
                    unit.started()
                elif order in ("crash", "finish"):
                    if self.plan.clear_sec:
                        self.ending = True
                        unit.ending("it clears up")
                        await trio.sleep(self.plan.clear_sec)
                    if order == "crash":
                        raise BoomError("boom")
                    return
            self.orders, self.bell = [], trio.Event()
            await self.bell.wait()


@dataclass
class World:
    """A supervisor, its witnesses, and the model."""

    scenario: Scenario
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(stop_within_sec=STOP_WITHIN))
    bodies: dict[str, Body] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    needs: dict[str, list[Requirement]] = field(default_factory=dict)
    group: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    ended: list[Life] = field(default_factory=list)  # by themselves
    stopped: list[Life] = field(default_factory=list)
    told: list[Life] = field(default_factory=list)  # the same, over the whole run
    due: set[Life] = field(default_factory=set)  # have to be stopped
    allowed: set[Life] = field(default_factory=set)  # may be
    wanted: set[str] = field(default_factory=set)  # who may have been started, ever
    rounds: list[set[Life]] = field(default_factory=list)  # who is restarted together
    entered: list[tuple[str, set[Life]]] = field(default_factory=list)  # and who lived then
    blurred: bool = False  # events overlap, so that the model only knows what may be

    # --- what there is ----------------------------------------------------------------------------

    def build(self) -> None:
        plans = self.scenario.plans
        self.group = [f"u{place}" for place in self.scenario.group if place < len(plans)]
        units = [self.unit(f"u{place}", plan, place) for place, plan in enumerate(plans)]
        if self.scenario.nested:
            inner = Supervisor(path=NESTED, events=self.supervisor.events)
            inner.add(
                *(Unit(name=n, body=self.body(f"{NESTED}/{n}", Plan(stop_sec=2))) for n in "xy")
            )
            policy = RestartPolicy(when=RestartWhen.ALWAYS, delay_sec=1)
            needs = self.needs[NESTED] = [Requirement("u0", Condition.STARTED)]
            self.want(NESTED)
            nest = Unit(
                name=NESTED, body=inner.run, inner=inner, restart=policy, requirements=tuple(needs)
            )
            units.append(nest)
        self.supervisor.add(*units)

    def body(self, name: str, plan: Plan) -> Body:
        self.bodies[name] = Body(self, name, plan)
        return self.bodies[name]

    def unit(self, name: str, plan: Plan, place: int) -> Unit:
        others = list(self.plans)[:place]
        needs = {others[n % len(others)]: condition for n, condition in plan.needs if others}
        self.plans[name] = plan
        self.needs[name] = [Requirement(other, condition) for other, condition in needs.items()]
        if plan.autostart:
            self.want(name)
        return Unit(
            name=name,
            body=self.body(name, plan),
            requirements=tuple(self.needs[name]),
            restart=RestartPolicy(
                when=plan.when, delay_sec=plan.delay_sec, max_restarts=plan.max_restarts
            ),
            restart_dependents=plan.restart_dependents,
            restarts_also=tuple(self.grouped_with(name)),
            ends_tree=plan.ends_tree,
            autostart=plan.autostart,
        )

    def want(self, name: str) -> None:
        self.wanted.add(name)
        for needed in self.needs.get(name, ()):
            self.want(needed.name)

    def grouped_with(self, name: str) -> list[str]:
        if name not in self.group:
            return []
        first = self.group.index(name) + 1
        one_for_all = self.scenario.strategy is GroupStrategy.ONE_FOR_ALL
        return [n for n in self.group if n != name] if one_for_all else self.group[first:]

    def dependents(self, name: str) -> set[str]:
        direct = {n for n, needs in self.needs.items() if any(r.name == name for r in needs)}
        return direct.union(*map(self.dependents, direct))

    def forget_removed(self) -> None:
        for name in self.plans.keys() - set(self.supervisor.names):
            del self.plans[name], self.needs[name]

    def lives(self, name: str) -> bool:
        return any(b.lives for n, b in self.bodies.items() if n.partition("/")[0] == name)

    # --- what the bodies witness ------------------------------------------------------------------

    def complain(self, words: str) -> None:
        self.violations.append(words)

    def note_entry(self, body: Body) -> None:
        if body.lives > 1:
            self.complain(f"two live generations of {body.name}")
        others = {(n, b.generation) for n, b in self.bodies.items() if b.lives and b is not body}
        self.entered.append((body.name, others))
        for needed in self.needs.get(body.name, ()):
            if not self.holds(needed):
                self.complain(f"{body.name} started before {needed}")
        if body.name in self.plans:
            here = self.supervisor.status(body.name)
            if here.generation != body.generation:
                self.complain(f"{body.name} is of generation {body.generation}: {here}")
            if self.supervisor.stopping is not None:
                self.complain(f"{body.name} started while the tree stops")

    def holds(self, needed: Requirement) -> bool:
        """Say whether a condition holds, from what its body has said and how it has ended."""
        body, stage = self.bodies[needed.name], self.supervisor.status(needed.name).stage
        if stage in (Stage.COMPLETED, Stage.FAILED):
            well = stage is Stage.COMPLETED
            counts = well or needed.condition is Condition.COMPLETED
            return counts and not body.lives
        if needed.condition is Condition.READY:
            return body.lives == 1 and body.said_ready and not (body.told_to_stop or body.ending)
        return needed.condition is Condition.STARTED and body.lives == 1

    def note_stop(self, body: Body) -> None:
        self.stopped.append((body.name, body.generation))
        self.told.append((body.name, body.generation))
        if self.supervisor.stopping is not None and not self.blurred:  # else it was sent before
            above = [n for n in self.dependents(body.name) if self.lives(n)]
            if above:
                self.complain(f"{body.name} is told to stop before {above}")

    # --- the model --------------------------------------------------------------------------------

    def steady(self) -> dict[str, Life]:
        """Return the units that run, and neither end nor have to."""
        lives = {name: (name, self.bodies[name].generation) for name in self.plans}
        return {
            name: life
            for name, life in lives.items()
            if (body := self.bodies[name]).lives
            and not (body.told_to_stop or body.ending or life in self.due)
        }

    def going_with(self, origin: str, steady: dict[str, Life]) -> set[Life]:
        """Return who has to be restarted with *origin*, which has ended or is restarted."""
        known = origin in self.supervisor.names
        stage = self.supervisor.status(origin).stage if known else None
        to_visit, found = [origin], set[str]()
        while to_visit:
            name = to_visit.pop()
            others = self.dependents(name) if self.plans[name].restart_dependents else set[str]()
            if name != origin or stage not in (Stage.COMPLETED, Stage.FAILED):
                others = others.union(self.grouped_with(name))
            new = (others & steady.keys()) - found - {origin}
            found |= new
            to_visit += new if stage is not Stage.FAILED else ()
        return {steady[name] for name in found}

    def expect(self, event: Event, name: str, steady: dict[str, Life], ended: list[Life]) -> None:
        """Note whose stop is explained by *event*, or by the ends that have come of it."""
        going: set[Life] = set()
        if event.what == "restart" and name in self.plans:
            going |= self.going_with(name, steady)
        if event.what in ("stop", "restart") or (
            event.what == "remove" and not self.dependents(name)
        ):
            self.allowed.add((name, self.bodies[name].generation))  # it may be ending by itself
            going |= {steady[name]} if name in steady else set()
        crashed = [n for n, g in ended if n in self.plans and (n, g) not in self.due | going]
        for origin in crashed:
            if origin in self.supervisor.names:
                going |= self.going_with(origin, steady)
            else:  # it has ended by itself, or because it was removed meanwhile
                self.allowed |= self.going_with(origin, steady)
        if len(crashed) > 1 or self.blurred:
            self.allowed |= {(n, g + k) for n, g in going for k in range(3)}
        else:
            self.due |= going
            self.rounds.append(going)

    # --- what has to hold -------------------------------------------------------------------------

    def check(self) -> None:
        for life in self.stopped:
            if life[0] in self.plans and life not in self.due | self.allowed:
                self.complain(f"{life} was stopped for no reason")
        self.stopped.clear()
        self.check_entries()
        if self.supervisor.running and self.supervisor.stopping is None:
            names = self.supervisor.names
            if any(self.is_over(n) for n in names) and all(map(self.is_no_reason_to_stay, names)):
                self.complain("everything has ended, and the tree goes on")
            for name in names:
                self.check_standing(name)
                ends = name in self.plans and self.plans[name].ends_tree
                stage = self.supervisor.status(name).stage
                if ends and stage in (Stage.COMPLETED, Stage.FAILED):
                    self.complain(f"{name} has ended, and the tree goes on")
        assert not self.violations, self.violations

    def check_entries(self) -> None:
        for name, others in self.entered:
            together = [r for r in self.rounds if name in {n for n, _ in r}]
            for left in (others & r for r in together):
                if left:
                    self.complain(f"{name} started before {left} were down")
            if name in self.plans and name not in self.wanted:
                self.complain(f"{name} was started, and nobody wanted it")
        self.entered.clear()

    def is_over(self, name: str) -> bool:
        return self.supervisor.status(name).stage in OVER

    def is_no_reason_to_stay(self, name: str) -> bool:
        never = name in self.plans and not (
            self.plans[name].autostart or self.bodies[name].generation
        )
        return self.is_over(name) or (never and self.supervisor.status(name).stage is Stage.IDLE)

    def check_standing(self, name: str) -> None:
        status = self.supervisor.status(name)
        if not status.reason:
            self.complain(f"{name} stands at {status.stage} for no reason")
        if status.stage is Stage.BACKOFF and status.next_restart_at is None:
            self.complain(f"{name} backs off, nobody knows until when")
        if name == NESTED or status.stage is not Stage.WAITING:
            return
        unmet = {r.name for r in self.needs[name] if not self.holds(r)}
        going = {n for n in status.waiting_for if n not in unmet and self.lives(n)}
        if not self.blurred:  # else it may be due, and not told so yet
            going -= self.steady().keys()
        if set(status.waiting_for) != unmet | going or not status.waiting_for:
            self.complain(f"{name} waits for {status.waiting_for}, and not for {unmet}")
        if not (
            status.reason.startswith("waiting for ") and all(n in status.reason for n in unmet)
        ):
            self.complain(f"{name} waits for {unmet} and says {status.reason!r}")

    def check_events(self) -> None:
        states: dict[str, str] = {}
        found: dict[int, UnitEvent] = {}
        for sequence, event, _ in self.supervisor.events.tail():
            found[sequence] = event
            if not event.reason:
                self.complain(f"an event without a reason: {event}")
            if event.cause is not None and event.cause not in found:
                self.complain(f"the cause of {event} came later")
            if event.kind is EventKind.MOVED:
                self.check_move(event, states.get(event.unit, "stopped"))
                states[event.unit] = str(event.new)
        moves = [e for e in found.values() if e.kind is EventKind.MOVED]
        ends = {(e.unit, e.generation) for e in moves if e.new in ("stopped", "failed")}
        begun = {(e.unit, e.generation + 1) for e in moves if e.new == "starting"}
        if not begun <= ends:
            self.complain(f"nothing is said of the ends of {begun - ends}")
        for life in self.told:
            self.check_why(life, found)

    def check_why(self, life: Life, found: dict[int, UnitEvent]) -> None:
        """Check that the stop of a life goes back to somebody who has asked for it, and why."""
        event = next(
            e
            for e in reversed(found.values())
            if (e.unit, e.generation) == life and e.new in ("stopped", "failed")
        )
        chain = [event]
        while chain[-1].cause is not None:
            chain.append(found[chain[-1].cause])
        asked = [e for e in chain if e.kind is EventKind.ASKED]
        origins = [e.reason.rpartition(" ")[2] for e in asked if e.reason.startswith("to restart")]
        if not asked or not all(any(e.unit == origin for e in chain) for origin in origins):
            self.complain(f"nobody knows why {life} was stopped: {chain}")

    def check_move(self, event: UnitEvent, old: str) -> None:
        if event.old != old or event.new not in UNIT_TABLE.successors(old):  # type: ignore[arg-type]
            self.complain(f"from {old}: {event}")
        again = event.new == "starting" and event.generation > 0
        if again and event.cause is None and "/" not in event.unit:
            self.complain(f"nobody knows why: {event}")


class Run:
    """One scenario, from the start to the end of its tree."""

    def __init__(self, scenario: Scenario) -> None:
        self.world = World(scenario)
        self.supervisor = self.world.supervisor
        self.cancel = trio.CancelScope()
        self.stop_began = self.stop_ended = 0.0
        self.asked = False

    async def main(self) -> None:
        self.world.build()
        async with trio.open_nursery() as nursery, trio.open_nursery() as self.requests:
            nursery.start_soon(self.run_tree)
            self.requests.start_soon(self.watch_stop)
            await wait_all_tasks_blocked()
            self.world.check()
            for event in self.world.scenario.events:
                await self.happen(event)
            await self.happen(Event("minute"))
            for name, generation in self.world.due:
                body = self.world.bodies[name]
                if body.lives and body.generation == generation and self.is_going:
                    self.world.complain(f"{name} should have been stopped")
            self.supervisor.ask_stop_tree("that was all")
            with trio.fail_after(10_000):  # on the virtual clock
                await self.supervisor.wait_ended()
            self.requests.cancel_scope.cancel()
        self.check_end()

    async def run_tree(self) -> None:
        with self.cancel:
            await self.supervisor.run()
        self.stop_ended = trio.current_time()

    async def watch_stop(self) -> None:
        await self.supervisor.wait_stopping()
        self.stop_began = trio.current_time()

    @property
    def is_going(self) -> bool:
        return self.supervisor.running and self.supervisor.stopping is None

    async def happen(self, event: Event) -> None:
        world = self.world
        world.forget_removed()
        if not self.supervisor.running or not world.plans:
            return
        names = list(world.plans)
        name = names[event.place % len(names)]
        steady, before = world.steady(), len(world.ended)
        if event.ticks is not None:
            world.blurred = True
        self.act(event.what, name, event.place)
        if event.what in ("second", "minute"):
            await trio.sleep(1 if event.what == "second" else 61)
        for _ in range(event.ticks or 0):
            await trio.lowlevel.checkpoint()
        if event.ticks is None:
            await wait_all_tasks_blocked()
        if world.blurred or not self.is_going:
            now = [(n, b.generation) for n, b in world.bodies.items()]
            world.allowed |= {(n, g + k) for n, g in now for k in range(-2, 3)}
        if event.ticks is None:
            world.expect(event, name, steady, world.ended[before:])
            world.check()
            world.blurred = world.blurred and event.what != "minute"

    def act(self, what: str, name: str, place: int) -> None:
        world, supervisor = self.world, self.supervisor
        with suppress(SupervisionError):
            if what in ("ready", "crash", "finish"):
                nested = f"{NESTED}/x"
                world.bodies[nested if place == 6 and nested in world.bodies else name].tell(what)
            elif what in ("start", "stop", "restart"):
                if what != "stop":
                    world.want(name)
                ask = {"start": supervisor.ask_start, "stop": supervisor.ask_stop}
                ask.get(what, supervisor.ask_restart)(name)
            elif what == "remove":
                self.requests.start_soon(self.remove, name)
            elif what == "add":
                plan = world.scenario.plans[place % len(world.scenario.plans)]
                supervisor.add(world.unit(f"v{len(world.bodies)}", plan, len(world.plans)))
            elif what == "stop tree":
                supervisor.ask_stop_tree("that was all")
            elif what == "cancel run":
                self.cancel.cancel()

    async def remove(self, name: str) -> None:
        with suppress(SupervisionError):
            await self.supervisor.remove(name)

    def check_end(self) -> None:
        world, supervisor = self.world, self.supervisor
        world.forget_removed()
        if self.stop_ended - self.stop_began > STOP_WITHIN + 0.01:
            world.complain(f"the stop took {self.stop_ended - self.stop_began} s")
        for name, body in world.bodies.items():
            if body.lives:
                world.complain(f"{name} outlives the tree")
        for status in supervisor.statuses():
            if status.state not in ("stopped", "failed") or status.stage not in (*OVER, Stage.IDLE):
                world.complain(f"after the end: {status}")
        if supervisor.stopping == "everything has ended" and not all(
            map(world.is_no_reason_to_stay, supervisor.names)
        ):
            world.complain("the tree has ended before its units")
        world.check_events()
        assert not world.violations, world.violations


@given(scenarios, st.random_module())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_the_model_explains_it(scenario: Scenario, order: object) -> None:
    trio.run(Run(scenario).main, clock=MockClock(autojump_threshold=0))
