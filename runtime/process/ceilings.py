"""How much a process may use, and for how long it may use more: arithmetic."""

from collections.abc import Mapping
from typing import Final

from ._exceptions import CeilingError
from .specs import CeilingsSpec
from .stats import ProcessSample

_MEMORY: Final = "memory_mb"
_CPU: Final = "cpu_percent"

#: Since when each ceiling has been exceeded without interruption.
Since = Mapping[str, float]


def judge_sample(
    name: str, ceilings: CeilingsSpec, since: Since, sample: ProcessSample, now: float
) -> tuple[Since, CeilingError | None]:
    """Return since when each ceiling is exceeded, and what has been for as long as it may not.

    *since* is the answer for the sample before, empty for the first.
    """
    exceeded = {
        setting: since.get(setting, now)
        for setting, limit in _limits(ceilings).items()
        if _used(ceilings, sample, setting) > limit
    }
    for setting, began in exceeded.items():
        if now - began >= ceilings.for_sec:
            used, limit = _used(ceilings, sample, setting), _limits(ceilings)[setting]
            return exceeded, CeilingError(
                name, setting, used, limit, for_sec=ceilings.for_sec, of=ceilings.of
            )
    return exceeded, None


def _limits(ceilings: CeilingsSpec) -> dict[str, float]:
    limits = {_MEMORY: ceilings.memory_mb, _CPU: ceilings.cpu_percent}
    return {setting: limit for setting, limit in limits.items() if limit is not None}


def _used(ceilings: CeilingsSpec, sample: ProcessSample, setting: str) -> float:
    if ceilings.of == "family":
        return sample.family_memory_mb if setting == _MEMORY else sample.family_cpu_percent
    return sample.memory_mb if setting == _MEMORY else sample.cpu_percent
