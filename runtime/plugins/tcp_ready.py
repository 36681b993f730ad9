"""The readiness strategy ``tcp`` as a plugin."""

from typing import ClassVar

from ._built_in import BuiltInReadyPlugin


class TCPReadyPlugin(BuiltInReadyPlugin):
    """Provides ``tcp``: a process is ready once somebody listens at ``port``."""

    strategy: ClassVar[str] = "tcp"
