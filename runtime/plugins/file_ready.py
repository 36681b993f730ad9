"""The readiness strategy ``file`` as a plugin."""

from typing import ClassVar

from ._built_in import BuiltInReadyPlugin


class FileReadyPlugin(BuiltInReadyPlugin):
    """Provides ``file``: a process is ready once there is a file at ``path``."""

    strategy: ClassVar[str] = "file"
