"""The supervision core: tables of states, units, restart policies, the supervisor, its events.

It knows none of the kinds of units that are built on it.
"""

from .budget import StopBudget as StopBudget
from .events import EventKind as EventKind
from .events import Journal as Journal
from .events import UnitEvent as UnitEvent
from .graph import Condition as Condition
from .graph import Requirement as Requirement
from .graph import Stage as Stage
from .health import HealthPolicy as HealthPolicy
from .lifecycle import Lifecycle as Lifecycle
from .lifecycle import Stages as Stages
from .lifecycle import TransitionTable as TransitionTable
from .restart import GroupStrategy as GroupStrategy
from .restart import RestartPolicy as RestartPolicy
from .restart import RestartWhen as RestartWhen
from .supervisor import Supervisor as Supervisor
from .unit import Unit as Unit
from .unit import UnitHandle as UnitHandle
from .unit import UnitState as UnitState
from .unit import UnitStatus as UnitStatus
from .unit import current_unit as current_unit
