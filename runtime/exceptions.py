"""Every error that the runtime raises for its users.

Each carries its facts as attributes, and its sentence is made from them.
"""

from runtime._control import ControlServerError as ControlServerError
from runtime._control import OnTheLoopError as OnTheLoopError
from runtime._control import TreeEndedError as TreeEndedError
from runtime._secrets import SecretError as SecretError
from runtime.invocation import InvocationCancelledError as InvocationCancelledError
from runtime.invocation import InvocationError as InvocationError
from runtime.invocation import InvocationNotFoundError as InvocationNotFoundError
from runtime.invocation import InvocationRejectedError as InvocationRejectedError
from runtime.invocation import InvocationStatusError as InvocationStatusError
from runtime.invocation import InvocationStatusOwnershipError as InvocationStatusOwnershipError
from runtime.invocation import InvocationStatusTransitionError as InvocationStatusTransitionError
from runtime.invocation import NoResultError as NoResultError
from runtime.invocation import TaskFailedError as TaskFailedError
from runtime.manifest import ManifestError as ManifestError
from runtime.process import CeilingError as CeilingError
from runtime.process import HookError as HookError
from runtime.process import NotReadyError as NotReadyError
from runtime.process import NotRunningError as NotRunningError
from runtime.process import ProcessError as ProcessError
from runtime.process import ProcessExitedError as ProcessExitedError
from runtime.process import RunLimitError as RunLimitError
from runtime.process import SpawnError as SpawnError
from runtime.process import SurvivorsError as SurvivorsError
from runtime.process import UnresponsiveError as UnresponsiveError
from runtime.run_directory import AlreadyRunningError as AlreadyRunningError
from runtime.run_directory import RunDirectoryError as RunDirectoryError
from runtime.service import ConfigurationError as ConfigurationError
from runtime.service import DuplicateServiceClassError as DuplicateServiceClassError
from runtime.service import NotRegisteredError as NotRegisteredError
from runtime.service import ServiceError as ServiceError
from runtime.service import ServiceFailedError as ServiceFailedError
from runtime.service import ServiceStopError as ServiceStopError
from runtime.service import UnknownServiceClassError as UnknownServiceClassError
from runtime.state_backend import NotOpenError as NotOpenError
from runtime.state_backend import StateBackendError as StateBackendError
from runtime.state_backend import StoreFileError as StoreFileError
from runtime.state_backend import UnknownStateBackendError as UnknownStateBackendError
from runtime.supervision._exceptions import DependencyCycleError as DependencyCycleError
from runtime.supervision._exceptions import DuplicateUnitError as DuplicateUnitError
from runtime.supervision._exceptions import EndedBeforeReadyError as EndedBeforeReadyError
from runtime.supervision._exceptions import IllegalTransitionError as IllegalTransitionError
from runtime.supervision._exceptions import SupervisionError as SupervisionError
from runtime.supervision._exceptions import UnhealthyError as UnhealthyError
from runtime.supervision._exceptions import UnitFailedError as UnitFailedError
from runtime.supervision._exceptions import UnitInUseError as UnitInUseError
from runtime.supervision._exceptions import UnitNameError as UnitNameError
from runtime.supervision._exceptions import UnknownUnitError as UnknownUnitError
from runtime.tasks import DuplicateTaskError as DuplicateTaskError
from runtime.tasks import TaskArgumentsError as TaskArgumentsError
from runtime.tasks import TaskDefinitionError as TaskDefinitionError
from runtime.tasks import TaskError as TaskError
from runtime.tasks import TaskResultError as TaskResultError
from runtime.tasks import UnknownTaskError as UnknownTaskError
