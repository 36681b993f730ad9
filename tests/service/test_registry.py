"""Service classes that can be had by name."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.service import (
    DuplicateServiceClassError,
    as_service_class,
    get_available_services,
    get_service_class,
    register_service_class,
    registry,
)

MODULE = """
from runtime.service import Service, register_service_class

@register_service_class
class {name}Service(Service):
    version = {version}
    def create_manager(self):
        raise AssertionError("nobody makes one")
"""


@pytest.fixture(autouse=True)
def _unregister(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone behind it."""
    monkeypatch.setattr(registry, "_classes", {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, and whose modules are forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def install(folder: Path) -> Callable[..., None]:
    """Install a distribution with entry points, as pip would leave it."""

    def install(distribution: str, *points: str, **modules: str) -> None:
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        (info / "entry_points.txt").write_text("\n".join(["[trio_runtime.services]", *points, ""]))
        importlib.invalidate_caches()

    return install


def test_a_class_is_registered_by_its_name_without_service(kit: Any) -> None:
    class EchoService(kit.ScriptedService):  # type: ignore[misc]
        pass

    assert register_service_class(EchoService) is EchoService
    assert get_service_class("echo") is EchoService
    assert get_service_class("EchoService") is None
    assert dict(get_available_services()) == {"echo": EchoService}


def test_a_short_form_is_registered_and_stays_what_it_was() -> None:
    @register_service_class
    async def ticker_service() -> None:
        pass

    found = get_service_class("ticker")
    assert found is not None
    assert found().name == "ticker"
    assert not isinstance(ticker_service, type)
    register_service_class(ticker_service)  # once more is no harm


def test_what_is_no_service_is_not_registered() -> None:
    with pytest.raises(TypeError, match="derive it from that"):
        register_service_class(dict)  # type: ignore[type-var]
    assert dict(get_available_services()) == {}


def test_two_classes_cannot_have_one_name(kit: Any) -> None:
    def make() -> Any:
        class EchoService(kit.ScriptedService):  # type: ignore[misc]
            pass

        return EchoService

    class EchoService(kit.ScriptedService):  # type: ignore[misc]
        pass

    async def echo() -> None:
        pass

    register_service_class(EchoService)
    for other in (make(), echo):
        with pytest.raises(DuplicateServiceClassError, match="'echo' already") as caught:
            register_service_class(other)
        assert caught.value.name == "echo"
    assert get_service_class("echo") is EchoService


def test_a_module_that_is_loaded_again_replaces_what_it_registered(folder: Path) -> None:
    (folder / "shop_a.py").write_text(MODULE.format(name="Cart", version=1))
    module = importlib.import_module("shop_a")
    assert get_service_class("cart").version == 1  # type: ignore[union-attr]
    (folder / "shop_a.py").write_text(MODULE.format(name="Cart", version=22))
    importlib.reload(module)
    assert get_service_class("cart").version == 22  # type: ignore[union-attr]
    (folder / "shop_b.py").write_text(MODULE.format(name="Cart", version=3))
    with pytest.raises(DuplicateServiceClassError):
        importlib.import_module("shop_b")


def test_a_distribution_offers_classes_by_entry_points(install: Callable[..., None]) -> None:
    text = MODULE.replace("@register_service_class", "").format(name="Cart", version=1)
    text += "\n\nasync def tick(): ...\n"
    install("shop", "basket = shop_mod:CartService", "tick = shop_mod:tick", shop_mod=text)
    found = get_service_class("basket")
    assert found is not None
    assert found.__module__ == "shop_mod"
    assert get_service_class("cart") is None
    available = get_available_services()
    assert available["basket"] is found
    assert available["tick"]().name == "tick"


def test_what_is_registered_goes_before_entry_points(
    install: Callable[..., None], kit: Any
) -> None:
    text = MODULE.replace("@register_service_class", "").format(name="Echo", version=1)
    install("shop", "echo = shop_mod:EchoService", shop_mod=text)

    class EchoService(kit.ScriptedService):  # type: ignore[misc]
        pass

    register_service_class(EchoService)
    assert get_service_class("echo") is EchoService
    assert get_available_services()["echo"] is EchoService


def test_of_two_distributions_with_one_name_the_same_one_is_taken_everywhere(
    install: Callable[..., None],
) -> None:
    text = MODULE.replace("@register_service_class", "").format(name="Echo", version=1)
    install("shop", "echo = shop_one:EchoService", shop_one=text)
    install("pub", "echo = shop_two:EchoService", shop_two=text)
    found = get_service_class("echo")
    assert found is not None
    assert get_available_services()["echo"] is found


def test_a_broken_distribution_hides_no_other(
    install: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    install(
        "shop",
        *("broken = shop_broken:Cart", "number = shop_fine:NUMBER", "tick = shop_fine:tick"),
        shop_broken="import shop_missing",
        shop_fine="NUMBER = 3\nasync def tick(): ...\n",
    )
    assert list(get_available_services()) == ["tick"]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"entry point {name!r} cannot be loaded" for name in ("broken", "number")]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    with pytest.raises(ModuleNotFoundError, match="shop_missing"):
        get_service_class("broken")
    with pytest.raises(TypeError, match="3 is no Service"):
        get_service_class("number")


def test_unknown_names_and_a_view_that_cannot_be_written(kit: Any) -> None:
    assert get_service_class("nobody") is None
    assert get_service_class("") is None
    with pytest.raises(TypeError):
        get_available_services()["x"] = as_service_class(kit.ScriptedService)  # type: ignore[index]
