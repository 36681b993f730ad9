"""What one measurement against a limit gives."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pair:
    """Milliseconds of the runtime and of its limit, which took turns."""

    what: str
    ours: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
