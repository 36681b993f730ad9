"""What a process uses: cpu and memory, now, at most, and lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .meter import Meter
from .usage import Reading, cpu_percent, family_cpu_percent

#: So many samples of each process are kept.
SAMPLES_KEPT: Final = 300


@dataclass
class ProcessStats:
    """What one process uses: memory in MiB, cpu in percent of one core, and the most of each."""

    name: str
    path: Path
    memory_usage_mb: float
    cpu_usage_percent: float
    max_memory_usage_mb: float
    max_cpu_usage_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """What one process used at one moment, alone and with all that descends from it.

    Cpu is in percent of one core, since the look before; memory is the resident one, in MiB.
    *family_size* counts the process itself. *open_files* is the number of open descriptors, and
    *listening* has the TCP addresses that are listened on, such as ``127.0.0.1:80`` and
    ``[::1]:80``, both of the whole family; they are None where nobody has asked for them, or
    nobody may know.
    """

    timestamp: datetime
    cpu_percent: float
    memory_mb: float
    family_cpu_percent: float
    family_memory_mb: float
    family_size: int
    open_files: int | None = None
    listening: tuple[str, ...] | None = None


def make_sample(before: Reading | None, after: Reading, timestamp: datetime) -> ProcessSample:
    """Return what the newer of two looks at a process says, cpu since the other one."""
    return ProcessSample(
        timestamp=timestamp,
        cpu_percent=cpu_percent(before, after),
        memory_mb=after.memory_mb,
        family_cpu_percent=family_cpu_percent(before, after),
        family_memory_mb=after.family_memory_mb,
        family_size=after.family_size,
        open_files=after.open_files,
        listening=after.listening,
    )


class ProcessRuntimeInfo:
    """The newest measurement of one process, the highest so far, and the samples of late.

    They are of all generations: a restart does not begin anew.
    """

    def __init__(self) -> None:
        self._memory_usage_mb = 0.0
        self._cpu_usage_percent = 0.0
        self._max_memory_usage_mb = 0.0
        self._max_cpu_usage = 0.0
        self._samples: deque[ProcessSample] = deque(maxlen=SAMPLES_KEPT)
        self._meter = Meter()
        self._measured: Mapping[str, Reading] = {}

    @property
    def memory_usage_mb(self) -> float:
        """Resident memory in MiB."""
        return self._memory_usage_mb

    @memory_usage_mb.setter
    def memory_usage_mb(self, value: float) -> None:
        self._memory_usage_mb = value
        self._max_memory_usage_mb = max(value, self._max_memory_usage_mb)

    @property
    def cpu_usage_percent(self) -> float:
        """Cpu time since the measurement before, in percent of one core."""
        return self._cpu_usage_percent

    @cpu_usage_percent.setter
    def cpu_usage_percent(self, value: float) -> None:
        self._cpu_usage_percent = value
        self._max_cpu_usage = max(value, self._max_cpu_usage)

    @property
    def max_memory_usage_mb(self) -> float:
        """The highest `memory_usage_mb` so far."""
        return self._max_memory_usage_mb

    @property
    def max_cpu_usage(self) -> float:
        """The highest `cpu_usage_percent` so far."""
        return self._max_cpu_usage

    @property
    def samples(self) -> tuple[ProcessSample, ...]:
        """What a sampler has seen lately, oldest first, at most `SAMPLES_KEPT` of them."""
        return tuple(self._samples)

    def record(self, sample: ProcessSample) -> None:
        """Take what a sampler has seen."""
        self.memory_usage_mb, self.cpu_usage_percent = sample.memory_mb, sample.cpu_percent
        self._samples.append(sample)

    def rest(self) -> None:
        """Note that nothing of it runs, and so it uses nothing."""
        self.memory_usage_mb, self.cpu_usage_percent = 0.0, 0.0

    def measure(self, pid: int) -> None:
        """Look at process *pid*, now and in this thread; one that is gone uses nothing.

        It does not disturb a sampler, nor does a sampler disturb it: each has its own look before.
        """
        before, self._measured = self._measured, self._meter.read({"": pid})
        if not self._measured:
            self.rest()
            return
        sample = make_sample(before.get(""), self._measured[""], datetime.now(UTC))
        self.memory_usage_mb, self.cpu_usage_percent = sample.memory_mb, sample.cpu_percent
