"""For tests of one's own services, and (`runtime.testing.state_backend`) of one's own stores.

No test framework is needed; under a virtual clock (`trio.testing.MockClock`) waiting costs nothing.
"""

from ._services import ServiceUnderTest as ServiceUnderTest
from ._services import StateChange as StateChange
from ._services import open_service as open_service
