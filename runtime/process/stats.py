"""What a process uses: cpu and memory, now and at most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import _late

if TYPE_CHECKING:
    import psutil

_MB = 1024 * 1024


@dataclass
class ProcessStats:
    """What one process uses: memory in MiB, cpu in percent of one core, and the most of each."""

    name: str
    path: Path
    memory_usage_mb: float
    cpu_usage_percent: float
    max_memory_usage_mb: float
    max_cpu_usage_percent: float


class ProcessRuntimeInfo:
    """The newest measurement of one process, and the highest so far."""

    def __init__(self) -> None:
        self._memory_usage_mb = 0.0
        self._cpu_usage_percent = 0.0
        self._max_memory_usage_mb = 0.0
        self._max_cpu_usage = 0.0
        # psutil measures cpu between two looks at one and the same object.
        self._measured: psutil.Process | None = None

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

    def measure(self, pid: int) -> None:
        """Look at process *pid*; one that is gone uses nothing."""
        loaded = _late.psutil()
        try:
            measured = self._measured
            if measured is None or measured.pid != pid:
                measured = self._measured = loaded.Process(pid)
            with measured.oneshot():
                self.memory_usage_mb = measured.memory_info().rss / _MB
                self.cpu_usage_percent = measured.cpu_percent()
        except loaded.NoSuchProcess:
            self._measured = None
            self.memory_usage_mb, self.cpu_usage_percent = 0.0, 0.0
