"""Functions that are tasks, what is submitted of them, and the runners that run it."""

from runtime.invocation.models import OnDuplicate as OnDuplicate

from ._exceptions import DuplicateTaskError as DuplicateTaskError
from ._exceptions import JobFailedError as JobFailedError
from ._exceptions import OnlySubmitsError as OnlySubmitsError
from ._exceptions import TaskArgumentsError as TaskArgumentsError
from ._exceptions import TaskDefinitionError as TaskDefinitionError
from ._exceptions import TaskError as TaskError
from ._exceptions import TaskResultError as TaskResultError
from ._exceptions import UnknownTaskError as UnknownTaskError
from .client import BlockingClient as BlockingClient
from .home import TaskHome as TaskHome
from .invocation import Invocation as Invocation
from .options import ConcurrencyControl as ConcurrencyControl
from .options import TaskOptions as TaskOptions
from .runner import RunnerSettings as RunnerSettings
from .running import current_invocation as current_invocation
from .task import AsyncTask as AsyncTask
from .task import Call as Call
from .task import PlainTask as PlainTask
from .task import Task as Task
