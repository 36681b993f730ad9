"""The readiness strategy ``pipe`` as a plugin."""

from typing import ClassVar

from ._built_in import BuiltInReadyPlugin


class PipeReadyPlugin(BuiltInReadyPlugin):
    """Provides ``pipe``: a process is ready once ``ready`` is in the pipe at ``path``."""

    strategy: ClassVar[str] = "pipe"
