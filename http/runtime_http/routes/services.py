"""Services: the list, registration, and one rule per verb for all of them."""

# quart-schema makes answers of models; Quart's types know nothing of that.
# pyright: reportArgumentType=false

from collections.abc import Awaitable, Callable

from quart_schema import document_request, tag, validate_response

from runtime.application import Application
from runtime.service.models import ServiceStatus
from runtime.service.service import Service
from runtime_http._quart import Blueprint, read_json
from runtime_http.models import (
    ServiceChange,
    ServiceConfigurationRequest,
    ServiceList,
    ServiceRegistration,
    ServiceRegistrationRequest,
)
from runtime_http.problems import HttpProblem
from runtime_http.views import find_service, summarise_service

Verb = Callable[[Service], Awaitable[str]]


async def _start(service: Service) -> str:
    await service.start()
    return "started"


async def _stop(service: Service) -> str:
    await service.stop()
    return "stopped"


async def _restart(service: Service) -> str:
    await service.restart()
    return "restarted"


async def _configure(service: Service) -> str:
    service.configure(await _read_configuration())
    return "configured"


async def _configure_and_start(service: Service) -> str:
    await service.configure_and_start(await _read_configuration())
    return "configured and started"


#: What may be asked of each service, by the last part of the path.
VERBS: dict[str, Verb] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "configure": _configure,
    "configure_and_start": _configure_and_start,
}


async def _read_configuration() -> dict[str, object]:
    data = await read_json()
    if not isinstance(data, dict):
        raise HttpProblem(422, "a configuration is an object, such as {}")
    return data


async def _act(service: Service, verb: str) -> ServiceChange:
    return ServiceChange(status=await VERBS[verb](service), service=service.name)


class ServiceRouter(Blueprint):
    """The usual routes of one service: its status, and a rule for each verb.

    A service with routes of its own adds them to one and returns it from `create_router`; they are
    found below its own path, ``/services/NAME``.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            service.name.replace(".", "-"), __name__, url_prefix=f"/services/{service.name}"
        )
        self.service: Service = service
        _add_rules(self, "", lambda: service)


def _add_rules(blueprint: Blueprint, prefix: str, find: Callable[..., Service]) -> None:
    @blueprint.get(prefix or "/", strict_slashes=False)
    @validate_response(ServiceStatus)
    @tag(["services"])
    async def show(**name: str) -> ServiceStatus:
        """Tell how a service stands."""
        return find(**name).status

    def add(verb: str) -> None:
        @validate_response(ServiceChange)
        @tag(["services"])
        async def act(**name: str) -> ServiceChange:
            return await _act(find(**name), verb)

        act.__name__ = verb
        act.__doc__ = f"{verb.replace('_', ' ').capitalize()} a service, and answer when it is so."
        if verb.startswith("configure"):
            act = document_request(ServiceConfigurationRequest)(act)
        blueprint.add_url_rule(f"{prefix}/{verb}", verb, act, methods=["POST"])

    for verb in VERBS:
        add(verb)


def make_services(application: Application) -> Blueprint:
    """Return the routes of all services of *application*."""
    blueprint = Blueprint("services", __name__, url_prefix="/services")

    @blueprint.get("")
    @validate_response(ServiceList)
    @tag(["services"])
    async def list_services() -> ServiceList:
        """List the services."""
        services = sorted(application.services.values(), key=lambda each: each.name)
        return ServiceList(services=[summarise_service(each) for each in services])

    @blueprint.post("/register")
    @document_request(ServiceRegistrationRequest)
    @validate_response(ServiceRegistration)
    @tag(["services"])
    async def register() -> ServiceRegistration:
        """Register a service of a class that is known by name; it is not started."""
        data = ServiceRegistrationRequest.model_validate(await read_json())
        service = application.register_service_by_name(data.service_name, data.instance_name)
        return ServiceRegistration(
            status="registered", service=service.name, type=type(service).__name__
        )

    @blueprint.delete("/<name>")
    @validate_response(ServiceChange)
    @tag(["services"])
    async def deregister(name: str) -> ServiceChange:
        """Stop a service, and forget it."""
        await application.deregister_service(name)
        return ServiceChange(status="deregistered", service=name)

    def find(name: str) -> Service:
        return find_service(application, name)

    _add_rules(blueprint, "/<name>", find)
    return blueprint
