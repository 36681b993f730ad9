"""What a manifest may say of a service, and what is told when it cannot be so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runtime._problems import Named, Problem
from runtime.service import registry
from runtime.service.specs import ServiceEntry
from runtime.supervision.graph import Condition, Requirement
from runtime.supervision.restart import RestartWhen

SHOP = """
import trio
from runtime.service import Service, ServiceConfiguration, ServiceManager

class Size(ServiceConfiguration):
    size: int

class Quiet(ServiceManager):
    async def start(self): ...
    async def stop(self): ...

class CacheService(Service):
    configuration_class = Size
    def create_manager(self):
        if self.config.size == 13:
            raise LookupError("an unlucky size")
        return Quiet(self.logger)

class EasyService(CacheService):
    def create_manager(self):
        return Quiet(self.logger)
    def requires_configuration(self):
        return False

class ChoosyService(EasyService):
    def __init__(self, name, more):
        super().__init__(name)

async def ticker(config: Size):
    await trio.sleep_forever()

async def wrong(a, b): ...

NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a manifest, with modules of its own that are forgotten behind the test."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(registry, "_classes", {})
    (tmp_path / "specs_shop.py").write_text(SHOP)
    (tmp_path / "specs_exits.py").write_text("raise SystemExit(0)")
    (tmp_path / "specs_broken.py").write_text("import specs_missing")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def entry(path: str = "specs_shop:CacheService", **fields: Any) -> ServiceEntry:
    return ServiceEntry.model_validate({"name": "cache", "class": path, **fields})


def test_what_is_unset_has_its_default() -> None:
    made = entry()
    assert (made.kind, made.name, made.class_path) == (
        "service",
        "cache",
        "specs_shop:CacheService",
    )
    assert (made.configuration, made.enabled, made.autostart, made.timeout) == (None, None, True, 5)
    assert (made.restart_dependents, made.replica_of) == (False, None)
    assert made.restart_policy.when is RestartWhen.NEVER
    assert entry(restart={}).restart_policy.when is RestartWhen.FAILURE
    assert entry(timeout=None).timeout is None
    assert made.model_dump()["class"] == "specs_shop:CacheService"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a/b"},
        {"name": ""},
        {"name": "a\nb"},
        {"class": ""},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"dependencies": [""]},
        {"clas": "x"},
        {"configuration": [1]},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        entry(**fields)


def test_its_place_is_its_name_or_its_number() -> None:
    made = entry()
    assert made.location == ("services", "cache")
    made.note_place(3)
    step = made.location[1]
    assert isinstance(step, Named)
    assert (step, step.place) == ("cache", 3)


def test_an_entry_with_replicas_stands_for_all_of_them() -> None:
    made = entry(dependencies=["api", {"name": "db", "condition": "completed"}, "api-1"])
    assert made.requirements == (
        Requirement("api"),
        Requirement("db", Condition.COMPLETED),
        Requirement("api-1"),
    )
    replicas = [entry(name="api-0"), entry(name="api-1")]
    made.resolve_dependencies({"api": replicas})
    assert [need.name for need in made.requirements] == ["api-0", "api-1", "db"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("specs_shop:CacheService", {"configuration": {"size": 3}}),
        ("specs_shop:EasyService", {}),
        ("specs_shop:ticker", {"configuration": {"size": 3}}),
    ],
)
def test_a_service_is_made_as_the_entry_says(
    folder: Path, path: str, fields: dict[str, Any]
) -> None:
    made = entry(path, **fields)
    assert made.find_problems(folder) == []
    service = made.make()
    assert service.name == "cache"
    assert service.can_start
    assert service.status.is_configured is bool(fields)
    assert made.make() is not service
    assert sys.path[-1] == str(folder)
    assert made.find_problems(folder) == []
    assert sys.path.count(str(folder)) == 1


def test_enabled_of_the_entry_goes_before_that_of_the_configuration(folder: Path) -> None:
    configuration = {"size": 3, "enabled": True, "autostart": True}
    made = entry(configuration=configuration, enabled=False)
    assert made.find_problems(folder) == []
    service = made.make()
    assert not service.is_enabled
    assert service.config is not None
    assert not service.config.autostart  # the entry's is what counts
    assert configuration["enabled"] is True


def test_before_its_class_is_found_it_is_not_made() -> None:
    with pytest.raises(ValueError, match="the class of service 'cache' has not been resolved"):
        entry().make()


CLASS = ("services", "cache", "class")
CONFIGURATION = ("services", "cache", "configuration")


@pytest.mark.parametrize(
    ("path", "configuration", "problem"),
    [
        pytest.param(
            "specs_missing:X",
            None,
            Problem(
                CLASS,
                "module 'specs_missing' cannot be imported: ModuleNotFoundError: "
                "No module named 'specs_missing'",
            ),
            id="no module",
        ),
        pytest.param(
            "specs_exits:X",
            None,
            Problem(CLASS, "module 'specs_exits' cannot be imported: SystemExit: 0"),
            id="a script",
        ),
        pytest.param(
            ":X",
            None,
            Problem(CLASS, "module '' cannot be imported: ValueError: Empty module name"),
            id="nothing before the colon",
        ),
        pytest.param(
            "specs_shop:CachService",
            None,
            Problem(
                CLASS,
                "module 'specs_shop' has no 'CachService'; did you mean 'CacheService'?",
            ),
            id="no class",
        ),
        pytest.param(
            "specs_shop:NUMBER",
            None,
            Problem(CLASS, "3 is no Service, async function, generator or context manager"),
            id="a number",
        ),
        pytest.param(
            "specs_shop:wrong",
            None,
            Problem(
                CLASS,
                "wrong(a, b): such a service takes its configuration, annotated with a class"
                " derived from ServiceConfiguration, and task_status",
            ),
            id="a wrong function",
        ),
        pytest.param(
            "cach",
            None,
            Problem(
                CLASS,
                "no service class is registered as 'cach'; did you mean 'cache'?; or `module:Name`",
            ),
            id="not registered",
        ),
        pytest.param(
            "specs_shop:CacheService",
            None,
            Problem(CONFIGURATION, "must be configured before it is started"),
            id="not configured",
        ),
        pytest.param(
            "specs_shop:CacheService",
            {"size": "x"},
            Problem(
                (*CONFIGURATION, "size"),
                "input should be a valid integer, unable to parse string as an integer",
            ),
            id="a wrong value",
        ),
        pytest.param(
            "specs_shop:CacheService",
            {"size": 1, "enabeld": True},
            Problem((*CONFIGURATION, "enabeld"), "unknown key; did you mean 'enabled'?"),
            id="an unknown key",
        ),
        pytest.param(
            "specs_shop:CacheService",
            {"size": 13},
            Problem(CLASS, "cannot be made: LookupError: an unlucky size"),
            id="no manager",
        ),
        pytest.param(
            "specs_shop:ChoosyService",
            None,
            Problem(
                CLASS,
                "cannot be made: TypeError: ChoosyService.__init__() missing 1 required positional"
                " argument: 'more'",
            ),
            id="no instance",
        ),
    ],
)
def test_what_is_wrong_is_one_problem_with_its_place(
    folder: Path,
    kit: Any,
    path: str,
    configuration: dict[str, Any] | None,
    problem: Problem,
) -> None:
    class CacheService(kit.ScriptedService):  # type: ignore[misc]
        pass

    registry.register_service_class(CacheService)
    assert entry(path, configuration=configuration).find_problems(folder) == [problem]


def test_a_registered_class_is_found_by_its_name(folder: Path, kit: Any) -> None:
    class CacheService(kit.ScriptedService):  # type: ignore[misc]
        pass

    registry.register_service_class(CacheService)
    made = entry("cache")
    assert made.find_problems(folder) == []
    assert isinstance(made.make(), CacheService)


def test_what_a_distribution_offers_and_cannot_be_loaded_is_told(folder: Path) -> None:
    info = folder / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[trio_runtime.services]\nbasket = specs_broken:X\n")
    sys.path.append(str(folder))
    assert entry("basket").find_problems(folder) == [
        Problem(
            CLASS,
            "'basket' is offered, but cannot be loaded: ModuleNotFoundError:"
            " No module named 'specs_missing'",
        )
    ]
