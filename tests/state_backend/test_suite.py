"""The stores that come along do what every store does, on Trio and, in part, on asyncio."""

from __future__ import annotations

import pytest

from runtime.invocation.models import AppInfo
from runtime.state_backend import BaseStateBackend, make_state_backend
from runtime.testing.state_backend import StateBackendSuite


class InMemory:
    """In memory, where time is that of the event loop: it costs nothing here."""

    @pytest.fixture(autouse=True)
    def _clock(self, autojump_clock: object) -> None: ...

    def make_backend(self, app: AppInfo | None = None) -> BaseStateBackend:
        return make_state_backend("memory://", app)


class TestMemory(InMemory, StateBackendSuite):
    pass
