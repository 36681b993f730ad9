"""Groups of a manifest: units of any kind that are restarted together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from runtime._problems import Location, Named, Problem, did_you_mean
from runtime._specs import Entry, UnitName
from runtime.supervision.restart import GroupStrategy, restarted_with


class GroupSpec(BaseModel):
    """Units that are restarted together."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: UnitName = Field(
        description="Its name, which stands for all members; no unit has it.", examples=["web"]
    )
    strategy: GroupStrategy = Field(
        description="Who is restarted with a member: all others, or those behind it in `members`."
    )
    members: list[UnitName] = Field(
        min_length=1,
        max_length=1_000,
        description="The names of its units; that of an entry with replicas stands for all.",
        examples=[["api", "worker"]],
    )


def units_by_name(entries: Sequence[Entry]) -> Mapping[str, list[str]]:
    """Return the units that each name stands for: itself, or all replicas of an entry."""
    units: dict[str, list[str]] = {}
    for entry in entries:
        units.setdefault(entry.name, [entry.name])
        if entry.replica_of is not None:
            units.setdefault(entry.replica_of, []).append(entry.name)
    return units


def companions(
    groups: Sequence[GroupSpec], entries: Sequence[Entry]
) -> Mapping[str, tuple[str, ...]]:
    """Return for each unit that is in a group those that are restarted with it."""
    units = units_by_name(entries)
    found: dict[str, tuple[str, ...]] = {}
    for group in groups:
        members = [units.get(name, []) for name in group.members]
        found.update(restarted_with(group.strategy, members))
    return found


def find_group_problems(groups: Sequence[GroupSpec], entries: Sequence[Entry]) -> Iterator[Problem]:
    """Yield what is wrong with the names of groups and of their members."""
    units = units_by_name(entries)
    taken = {name: entry.kind for entry in entries for name in (entry.name, entry.replica_of)}
    group_of: dict[str, str] = {}
    for place, group in enumerate(groups):
        here = ("groups", Named(group.name, place))
        if group.name in taken:
            message = f"there is already a {taken[group.name]} {group.name!r}"
            yield Problem((*here, "name"), message)
        taken.setdefault(group.name, "group")
        yield from _judge_members(group, here, units, group_of)


def _judge_members(
    group: GroupSpec, here: Location, units: Mapping[str, list[str]], group_of: dict[str, str]
) -> Iterator[Problem]:
    for place, name in enumerate(group.members):
        problem = _judge_member(group, name, units, group_of)
        if problem:
            yield Problem((*here, "members", Named(name, place)), problem)


def _judge_member(
    group: GroupSpec, name: str, units: Mapping[str, list[str]], group_of: dict[str, str]
) -> str:
    if name not in units:
        return f"there is no unit {name!r}{did_you_mean(name, units)}"
    # The name of an entry is looked up as well: then its replicas need not be, once again.
    again = next((n for n in (name, *units[name]) if n in group_of), None)
    if again is not None:
        where = "this group" if group_of[again] == group.name else f"group {group_of[again]!r}"
        return f"{again!r} is in {where} already; a unit is in one group, and once"
    group_of.update(dict.fromkeys((name, *units[name]), group.name))
    return ""
