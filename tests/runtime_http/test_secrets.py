"""No answer has a secret in it that the manifest refers to."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.application import Application

from .conftest import AUTHORIZED, Serve, Site, follow, script

VALUE, IN_FILE = "s3same-open", "p4ss/word of the shop"
PATHS = (
    *("/", "/services", "/services/shop", "/processes", "/processes/p", "/processes/p/logs"),
    *("/tree", "/tree/shop", "/why/shop", "/why/p", "/metrics", "/events/recent"),
)


SHOP = """
from typing import Any
from runtime import Service, ServiceConfiguration, ServiceManager

class ShopConfiguration(ServiceConfiguration):
    deep: dict[str, Any]
    password: str

class ShopManager(ServiceManager):
    async def start(self):
        raise RuntimeError(f"no access with {self.key} and {self.password}")
    async def stop(self):
        pass

class ShopService(Service):
    configuration_class = ShopConfiguration
    def create_manager(self):
        manager = ShopManager(self.logger)
        manager.key = self.config.deep["key"][0]
        manager.password = self.config.password
        return manager
"""


async def events_of(site: Site) -> str:
    """Return all that has happened, as the stream of events tells it."""
    last = site.application.supervisor.events.last
    told: list[str] = []
    async with follow(site, "/events?after=0") as events:
        async for event in events:
            told.append(str(event))
            if event.get("id") == last:
                break
    return "".join(told)


async def logs_of(site: Site) -> str:
    """Return the first line of the stream of what the process prints."""
    async with follow(site, "/processes/p/logs?follow=1") as lines:
        return str(await anext(lines))


async def test_no_answer_has_a_secret_in_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_SECRET", VALUE)
    (tmp_path / "password").write_text(f"{IN_FILE}\n")
    reference = "${secret://env/SHOP_SECRET}"
    process = script(
        "p",
        'echo "key: $KEY, password: $PASSWORD"; exec sleep 1000',
        env={"KEY": reference, "PASSWORD": "${secret://file/password}"},
        ready_strategy="log",
        ready_params={"pattern": "key"},
    )
    service = {
        "name": "shop",
        "class": "secret_shop:ShopService",
        "configuration": {
            "deep": {"key": [f"<{reference}>"]},
            "password": "${secret://file/password}",
        },
    }

    def define(application: Application) -> None:
        @application.task(max_retries=1, retry_delay_sec=0.01)
        async def leak() -> None:
            raise RuntimeError(f"no access with {VALUE} and {IN_FILE}")

    manifest = {"processes": [process], "services": [service]}
    async with serve(manifest, set_up=define) as site:
        texts = {path: (await site.get(path, headers=AUTHORIZED)).text for path in PATHS}
        failed = await site.post("/services/shop/restart")
        assert failed.status_code in (409, 500)
        texts |= {path: (await site.get(path, headers=AUTHORIZED)).text for path in PATHS}
        leaked = await site.application.tasks.find("leak").submit()
        await leaked.wait()
        call = f"/invocations/{leaked.invocation_id}"
        answers = ("/invocations", call, f"{call}/history", f"{call}/result")
        texts |= {path: (await site.get(path)).text for path in answers}
        texts |= {"/events": await events_of(site), "follow": await logs_of(site)}
    everything = str(texts) + failed.text
    assert VALUE not in everything
    assert "p4ss" not in everything
    for path in ("/processes/p/logs", "follow"):
        assert "key: ***, password: ***" in texts[path]
    assert "no access with <***> and ***" in texts["/services/shop"]
    assert '"<***>"' in texts["/services/shop"]
    for path in ("/events", "/events/recent", "/why/shop", "/tree", "/tree/shop"):
        assert "no access with <***> and ***" in texts[path]
    assert "failed, RuntimeError: no access with *** and ***" in texts["/events"]
    assert "RuntimeError: no access with *** and ***" in texts[f"{call}/history"]
    assert texts[f"{call}/result"].count("no access with *** and ***") == 2
