"""Supervised processes: what the user says of them, how they stand, and how they are run."""

from runtime._specs import Dependency as Dependency
from runtime._specs import RestartSpec as RestartSpec

from ._exceptions import CeilingError as CeilingError
from ._exceptions import HookError as HookError
from ._exceptions import NotReadyError as NotReadyError
from ._exceptions import NotRunningError as NotRunningError
from ._exceptions import ProcessError as ProcessError
from ._exceptions import ProcessExitedError as ProcessExitedError
from ._exceptions import RunLimitError as RunLimitError
from ._exceptions import SpawnError as SpawnError
from ._exceptions import SurvivorsError as SurvivorsError
from ._exceptions import UnresponsiveError as UnresponsiveError
from ._manifest import ProcessManifest as ProcessManifest
from ._state import ProcessState as ProcessState
from .models import Process as Process
from .models import ProcessStatus as ProcessStatus
from .sampler import Pass as Pass
from .sampler import Sampler as Sampler
from .specs import CeilingsSpec as CeilingsSpec
from .specs import LogSpec as LogSpec
from .stats import ProcessRuntimeInfo as ProcessRuntimeInfo
from .stats import ProcessSample as ProcessSample
from .stats import ProcessStats as ProcessStats
