"""Where invocations are kept: in memory, in a file of SQLite, or in what a distribution adds."""

from runtime.invocation.models import AppInfo as AppInfo
from runtime.invocation.models import WorkflowIdentity as WorkflowIdentity

from ._exceptions import NotOpenError as NotOpenError
from ._exceptions import StateBackendError as StateBackendError
from ._exceptions import StoreFileError as StoreFileError
from ._exceptions import UnknownCursorError as UnknownCursorError
from ._exceptions import UnknownStateBackendError as UnknownStateBackendError
from ._urls import make_state_backend as make_state_backend
from .base import BaseStateBackend as BaseStateBackend
from .base import InvocationFilter as InvocationFilter
from .base import InvocationHistory as InvocationHistory
from .base import Page as Page
from .changes import Change as Change
from .changes import Changes as Changes
