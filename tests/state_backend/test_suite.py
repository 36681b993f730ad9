"""The stores that come along do what every store does, on Trio and, in part, on asyncio."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.invocation.models import AppInfo
from runtime.state_backend import BaseStateBackend, make_state_backend
from runtime.testing.state_backend import SharedStateBackendSuite, StateBackendSuite
from runtime.testing.state_backend._cancellation import CancellationTests
from runtime.testing.state_backend._claims import ClaimTests
from runtime.testing.state_backend._kit import Kit
from runtime.testing.state_backend._outcomes import OutcomeTests
from runtime.testing.state_backend._shared import SharedTests


class InMemory(Kit):
    def make_backend(self, app: AppInfo | None = None) -> BaseStateBackend:
        return make_state_backend("memory://", app)


class InFile(Kit):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/store.db"

    def make_backend(self, app: AppInfo | None = None) -> BaseStateBackend:
        return make_state_backend(self.url, app)


class OnAsyncio(Kit):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


@pytest.mark.usefixtures("autojump_clock")  # its time is that of the event loop
class TestMemory(InMemory, StateBackendSuite):
    pass


class TestMemoryOnAsyncio(OnAsyncio, InMemory, OutcomeTests, ClaimTests):
    pass


class TestSQLite(InFile, SharedStateBackendSuite):
    pass


class TestSQLiteOnAsyncio(OnAsyncio, InFile, SharedTests, OutcomeTests, CancellationTests):
    pass
