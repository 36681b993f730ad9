"""What two looks say of cpu and memory is arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime._procfs import Member
from runtime.process.usage import Reading, Use, cpu_percent, family_cpu_percent

LEADER = Member(10, 1)
MIB = 1024 * 1024


def use(own: float = 0, whole: float | None = None, **fields: object) -> Use:
    known = {"memory": 0, "born": 0.0, "alive": True, **fields}
    return Use(own, own if whole is None else whole, **known)  # type: ignore[arg-type]


def reading(at: float, leader: Use, *others: Use, pid: Member = LEADER) -> Reading:
    members = {Member(20 + n, 1): other for n, other in enumerate(others)}
    return Reading(at=at, leader=pid, members={pid: leader, **members})


def test_cpu_is_that_between_two_looks_in_percent_of_one_core() -> None:
    before, after = reading(100, use(3.0)), reading(102, use(4.5))
    assert cpu_percent(before, after) == 75.0
    assert family_cpu_percent(before, after) == 75.0


@pytest.mark.parametrize(
    "before",
    [
        None,
        pytest.param(reading(100, use(1.0), pid=Member(10, 2)), id="another with the same pid"),
        pytest.param(reading(102, use(1.0)), id="at the same moment"),
        pytest.param(reading(103, use(1.0)), id="a later one"),
    ],
)
def test_without_a_look_before_at_the_same_process_no_cpu_is_known(before: Reading | None) -> None:
    after = reading(102, use(50.0), use(7.0, born=101.0))
    assert cpu_percent(before, after) == 0.0
    assert family_cpu_percent(before, after) == 0.0


def test_what_was_born_between_the_looks_has_used_all_of_its_time_there() -> None:
    before, after = reading(100, use()), reading(102, use(), use(1.0, born=100.5))
    assert family_cpu_percent(before, after) == 50.0
    assert cpu_percent(before, after) == 0.0


def test_the_time_of_what_came_and_went_is_that_of_the_parent_that_waited() -> None:
    before, after = reading(100, use(0.0, 5.0)), reading(102, use(0.0, 6.0))
    assert family_cpu_percent(before, after) == 50.0


def test_a_member_that_is_waited_for_is_not_counted_again() -> None:
    before, after = reading(100, use(0, 0), use(30.0)), reading(102, use(0, 30.5))
    assert family_cpu_percent(before, after) == 25.0


def test_a_member_that_is_lost_takes_nothing_from_the_others() -> None:
    before, after = reading(100, use(1.0), use(30.0)), reading(102, use(2.0))
    assert family_cpu_percent(before, after) == 50.0


def test_a_member_that_was_overlooked_before_brings_no_time_along() -> None:
    before, after = reading(100, use(1.0)), reading(102, use(2.0), use(5_000.0, born=3.0))
    assert family_cpu_percent(before, after) == 50.0


def test_memory_is_summed_and_zombies_are_not_counted() -> None:
    one = reading(1, use(memory=10 * MIB), use(memory=20 * MIB), use(memory=0, alive=False))
    assert (one.memory_mb, one.family_memory_mb, one.family_size) == (10.0, 30.0, 2)


@dataclass(frozen=True)
class Model:
    """A family in which every end is waited for by a parent that is a member."""

    now: float
    members: dict[Member, Use]
    parents: dict[Member, Member]

    def look(self) -> Reading:
        return Reading(at=self.now, leader=LEADER, members=self.members)


def _burn(model: Model, who: Member, sec: float) -> Model:
    old = model.members[who]
    new = old._replace(own_sec=old.own_sec + sec, whole_sec=old.whole_sec + sec)
    return replace(model, members={**model.members, who: new})


def _fork(model: Model, who: Member) -> Model:
    child = Member(100 + len(model.parents), 1)
    return replace(
        model,
        members={**model.members, child: use(born=model.now)},
        parents={**model.parents, child: who},
    )


def _reap(model: Model, who: Member) -> Model:
    """Let one end and be waited for; its own children must be gone."""
    if who == LEADER or any(model.parents.get(m) == who for m in model.members):
        return model
    gone, parent = model.members[who], model.parents[who]
    kept = model.members[parent]
    members = {m: u for m, u in model.members.items() if m != who}
    members[parent] = kept._replace(whole_sec=kept.whole_sec + gone.whole_sec)
    return replace(model, members=members)


ACTS = st.lists(
    st.tuples(st.sampled_from(["burn", "fork", "reap"]), st.integers(0, 50), st.integers(1, 40)),
    max_size=60,
)


@given(before=ACTS, between=ACTS)
def test_where_all_are_waited_for_the_cpu_of_a_family_is_exact(
    before: list[tuple[str, int, int]], between: list[tuple[str, int, int]]
) -> None:
    model = Model(100.0, {LEADER: use()}, {})
    used = 0.0
    looks = []
    for acts in (before, between):
        used = 0.0
        for act, number, quarters in acts:
            model = replace(model, now=model.now + 0.25)
            who = list(model.members)[number % len(model.members)]
            if act == "burn":
                model, used = _burn(model, who, quarters / 4), used + quarters / 4
            else:
                model = _fork(model, who) if act == "fork" else _reap(model, who)
        model = replace(model, now=model.now + 1)
        looks.append(model.look())
    first, second = looks
    expected = used / (second.at - first.at) * 100
    assert family_cpu_percent(first, second) == pytest.approx(expected)
    alone = second.members[LEADER].own_sec - first.members[LEADER].own_sec
    assert cpu_percent(first, second) == pytest.approx(alone / (second.at - first.at) * 100)


USES = st.builds(
    Use,
    own_sec=st.floats(0, 1e6),
    whole_sec=st.floats(0, 1e6),
    memory=st.integers(0, 2**50),
    born=st.floats(0, 1e6),
    alive=st.booleans(),
)
FAMILIES = st.builds(
    Reading,
    at=st.floats(0, 1e6),
    leader=st.just(LEADER),
    members=st.dictionaries(st.builds(Member, st.integers(11, 20), st.just(1)), USES).flatmap(
        lambda others: USES.map(lambda leader: {LEADER: leader, **others})
    ),
)


@given(before=FAMILIES, after=FAMILIES)
def test_whatever_is_seen_no_cpu_is_negative_and_a_family_uses_no_less_than_its_leader(
    before: Reading, after: Reading
) -> None:
    alone, together = cpu_percent(before, after), family_cpu_percent(before, after)
    assert 0 <= alone <= together * (1 + 1e-9)
