"""What a manifest may say of any unit, whatever its kind."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from runtime._problems import Location, Named
from runtime.supervision.graph import Condition, Requirement
from runtime.supervision.health import HealthPolicy
from runtime.supervision.restart import RestartPolicy, RestartWhen


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic tells it
    return value


#: Without it, pydantic takes true for 1. It stands after the bounds, for these are the number's.
IsNumber = BeforeValidator(_no_truth_value)

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), IsNumber]
SecondsAboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False), IsNumber]
#: How often something happens, or has to: neither all the time nor practically never.
Period = Annotated[float, Field(ge=0.01, le=1e9, allow_inf_nan=False), IsNumber]
Factor = Annotated[float, Field(ge=1, allow_inf_nan=False), IsNumber]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), IsNumber]
Count = Annotated[int, Field(ge=0), IsNumber]
CountAboveZero = Annotated[int, Field(ge=1), IsNumber]
UnitName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f]+$")]


def without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


Text = Annotated[str, AfterValidator(without_nul)]

# The kernel takes no longer ones; and what is looked for folder by folder is looked for quickly.
_LONGEST_PATH = 4_095
_MOST_FOLDERS = 100


def _possible_path(path: Path) -> Path:
    text = without_nul(str(path))
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise ValueError(f"is longer than {_LONGEST_PATH} bytes; no path may be")
    if text.count("/") > _MOST_FOLDERS:
        raise ValueError(f"goes through more than {_MOST_FOLDERS} folders")
    return path


FilePath = Annotated[Path, AfterValidator(_possible_path)]


class Dependency(BaseModel):
    """An edge of the graph with a condition of its own."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: UnitName = Field(
        description="The unit that is waited for.",
        examples=["db"],
    )
    condition: Condition = Field(
        default=Condition.READY, description="What is waited for in that unit."
    )


class RestartSpec(BaseModel):
    """How a process, or a service, comes back after it ended unasked."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    when: RestartWhen = Field(
        default=RestartWhen.FAILURE, description="Which ends are followed by a restart."
    )
    delay_sec: Seconds = Field(default=0.1, description="Seconds before the first restart.")
    factor: Factor = Field(
        default=2.0,
        description="Growth of the delay from one restart to the next: 2 doubles it.",
    )
    max_delay_sec: Seconds = Field(
        default=30.0, description="Seconds that the delay grows to at most."
    )
    jitter: Share = Field(
        default=0.0,
        description="Share of the delay, 0 to 1, up to which a random part is added to it.",
        examples=[0.2],
    )
    forgive_after_sec: Seconds = Field(
        default=60.0, description="Seconds of being ready after which the delays begin anew."
    )
    max_restarts: Count | None = Field(
        default=None,
        description="Restarts before it is given up; unset: no limit.",
        examples=[10],
    )
    window_sec: SecondsAboveZero | None = Field(
        default=None,
        description="Seconds within which restarts are counted; unset: since it was forgiven.",
        examples=[300],
    )

    @model_validator(mode="after")
    def _check_delays(self) -> Self:
        if self.delay_sec > self.max_delay_sec:
            raise ValueError("delay_sec is above max_delay_sec (30 unless set); raise that as well")
        return self

    def to_policy(self) -> RestartPolicy:
        """Return the same for the supervisor."""
        return RestartPolicy(**self.model_dump())


class HealthSpec(BaseModel):
    """How often the health of what runs is checked, and how many answers it takes to act."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    interval_sec: Period = Field(
        default=10.0, description="Seconds from the start of one check to the start of the next."
    )
    timeout_sec: Period = Field(
        default=3.0, description="Seconds within which a check answers; else it has failed."
    )
    failures: CountAboveZero = Field(
        default=3, description="Failed checks after which it has failed, and its policy applies."
    )
    successes: CountAboveZero = Field(
        default=1,
        description="Checks in a row that must pass for it to be healthy, and failures forgotten.",
    )
    start_delay_sec: Seconds = Field(
        default=0.0, description="Seconds after it is ready before the first check."
    )

    def to_policy(self) -> HealthPolicy:
        """Return the same for the supervisor."""
        fields = set(HealthSpec.model_fields)
        return HealthPolicy(**self.model_dump(include=fields))


class Entry(Protocol):
    """An entry of a manifest, whatever its kind, as far as the others are concerned."""

    @property
    def kind(self) -> str:
        """What it is called in problems."""
        ...

    @property
    def name(self) -> str:
        """The name of its unit."""
        ...

    @property
    def replica_of(self) -> str | None:
        """The name of the entry that it is a replica of."""
        ...

    @property
    def location(self) -> Location:
        """Where it stands in the manifest."""
        ...

    @property
    def edges(self) -> list[Requirement]:
        """What each entry of its ``dependencies`` asks for, in their order."""
        ...

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """All that it waits for."""
        ...

    @property
    def restart_policy(self) -> RestartPolicy:
        """What follows an end of it that nobody asked for."""
        ...

    @property
    def late_values(self) -> Mapping[str, object]:
        """Its fields that may refer to secrets, by their keys."""
        ...

    def resolve_dependencies(self, known: "Mapping[str, Sequence[Entry]]") -> None:
        """Put all that an entry stands for in the place of its name."""
        ...


class NamedEntry(BaseModel):
    """An entry that is one unit of one name, and may wait for others: what such kinds share."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    section: ClassVar[Location]  #: where the entries of its kind stand in a manifest
    noun: ClassVar[str]  #: what one of its kind is called

    name: UnitName = Field(
        description="The name of its unit; no other unit has it.", examples=["cache"]
    )
    dependencies: list[UnitName | Dependency] = Field(
        default=[], description="The units that must be ready, or meet a condition, before."
    )

    _place: int | None = PrivateAttr(default=None)
    _resolved: tuple[Requirement, ...] | None = PrivateAttr(default=None)

    @property
    def kind(self) -> str:
        """What it is called in problems."""
        return self.noun

    @property
    def replica_of(self) -> str | None:
        """None: it has no replicas."""
        return None

    @property
    def location(self) -> Location:
        """Where it stands in its manifest, for problems to be told with."""
        return (*self.section, self.name if self._place is None else Named(self.name, self._place))

    def note_place(self, place: int) -> None:
        """Note which entry of its manifest it is."""
        self._place = place

    @property
    def edges(self) -> list[Requirement]:
        """What each entry of `dependencies` asks for, in the order of the entries."""
        return [
            Requirement(entry, Condition.READY)
            if isinstance(entry, str)
            else Requirement(entry.name, entry.condition)
            for entry in self.dependencies
        ]

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """All that it waits for; for an entry with replicas, all of them."""
        return tuple(self.edges) if self._resolved is None else self._resolved

    def resolve_dependencies(self, known: "Mapping[str, Sequence[Entry]]") -> None:
        """Let an entry with replicas stand for all of them."""
        found: dict[str, Requirement] = {}
        for edge in self.edges:
            names = [entry.name for entry in known.get(edge.name, ())] or [edge.name]
            for name in names:
                found.setdefault(name, Requirement(name, edge.condition))
        self._resolved = tuple(found.values())

    @property
    def restart_policy(self) -> RestartPolicy:
        """What follows an end of it that nobody asked for: nothing."""
        return RestartPolicy()

    @property
    def late_values(self) -> Mapping[str, object]:
        """Its fields that may refer to secrets: none."""
        return {}
