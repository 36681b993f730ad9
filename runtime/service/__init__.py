"""Services: parts of the program with a life of their own, in the same tree as the processes."""

from ._exceptions import ConfigurationError as ConfigurationError
from ._exceptions import DuplicateServiceClassError as DuplicateServiceClassError
from ._exceptions import NotRegisteredError as NotRegisteredError
from ._exceptions import ServiceError as ServiceError
from ._exceptions import ServiceFailedError as ServiceFailedError
from ._exceptions import ServiceStopError as ServiceStopError
from ._exceptions import UnknownServiceClassError as UnknownServiceClassError
from .manager import ServiceManager as ServiceManager
from .models import ApplicationStatus as ApplicationStatus
from .models import ServiceState as ServiceState
from .models import ServiceStatus as ServiceStatus
from .plain import as_service_class as as_service_class
from .registry import get_available_services as get_available_services
from .registry import get_service_class as get_service_class
from .registry import register_service_class as register_service_class
from .service import Service as Service
from .service import ServiceConfiguration as ServiceConfiguration
from .unit import service_unit as service_unit
