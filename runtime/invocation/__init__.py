"""What an invocation of a task *is*: its states, its models, and how an error is kept."""

from ._exceptions import InvocationCancelledError as InvocationCancelledError
from ._exceptions import InvocationError as InvocationError
from ._exceptions import InvocationNotFoundError as InvocationNotFoundError
from ._exceptions import InvocationRejectedError as InvocationRejectedError
from ._exceptions import InvocationStatusError as InvocationStatusError
from ._exceptions import InvocationStatusOwnershipError as InvocationStatusOwnershipError
from ._exceptions import InvocationStatusTransitionError as InvocationStatusTransitionError
from ._exceptions import NoResultError as NoResultError
from ._exceptions import TaskFailedError as TaskFailedError
from .errors import ErrorRecord as ErrorRecord
from .models import AppInfo as AppInfo
from .models import Move as Move
from .models import NewInvocation as NewInvocation
from .models import OnDuplicate as OnDuplicate
from .models import Outcome as Outcome
from .models import Registered as Registered
from .models import RunnerRecord as RunnerRecord
from .models import StoredInvocation as StoredInvocation
from .models import WorkflowIdentity as WorkflowIdentity
from .status import InvocationStatus as InvocationStatus
from .status import InvocationStatusRecord as InvocationStatusRecord
