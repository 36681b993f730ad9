"""Tests for a store of one's own: what every store does, as classes of coroutine test methods.

Derive from `StateBackendSuite`, or from `SharedStateBackendSuite` where several can be opened on
one store at the same time, and say how one is made::

    class TestMyStore(SharedStateBackendSuite):
        @pytest.fixture(autouse=True)
        def _folder(self, tmp_path: Path) -> None:
            self.url = f"mine:///{tmp_path}/store"

        def make_backend(self, app: AppInfo | None = None) -> BaseStateBackend:
            return MyStore(self.url, app)

Any runner of tests that makes an object for each test and awaits its coroutine methods will do, as
AnyIO's plugin for pytest does, on Trio or on asyncio. What fails is an `AssertionError`; pytest
shows more of it after ``pytest.register_assert_rewrite("runtime.testing.state_backend")``. No test
waits for longer than a store needs, and none asserts how long something takes.
"""

from ._cancellation import CancellationTests
from ._claims import ClaimTests
from ._kit import Kit
from ._looks import LookTests
from ._moves import MoveTests
from ._outcomes import OutcomeTests
from ._records import RecordTests
from ._recovery import RecoveryTests
from ._registration import RegistrationTests
from ._shared import SharedTests

__all__ = ["SharedStateBackendSuite", "StateBackendSuite"]


class StateBackendSuite(
    RegistrationTests,
    ClaimTests,
    MoveTests,
    OutcomeTests,
    LookTests,
    RecoveryTests,
    RecordTests,
    CancellationTests,
    Kit,
):
    """What every store does; override `make_backend`."""


class SharedStateBackendSuite(SharedTests, StateBackendSuite):
    """What a store does that can be opened more than once at the same time, beside all the rest.

    Each `make_backend` of one test is for the same store.
    """
