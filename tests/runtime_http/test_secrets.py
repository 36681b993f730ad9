"""No answer has a secret in it that the manifest refers to."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import AUTHORIZED, Serve, script

VALUE = "s3same-open"
PATHS = (
    *("/", "/services", "/services/shop", "/processes", "/processes/p", "/processes/p/logs"),
    *("/tree", "/tree/shop", "/why/shop", "/why/p", "/metrics"),
)


SHOP = """
from typing import Any
from runtime import Service, ServiceConfiguration, ServiceManager

class ShopConfiguration(ServiceConfiguration):
    deep: dict[str, Any]

class ShopManager(ServiceManager):
    async def start(self):
        raise RuntimeError(f"no access with {self.key}")
    async def stop(self):
        pass

class ShopService(Service):
    configuration_class = ShopConfiguration
    def create_manager(self):
        manager = ShopManager(self.logger)
        manager.key = self.config.deep["key"][0]
        return manager
"""


async def test_no_answer_has_a_secret_in_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SHOP_SECRET", VALUE)
    reference = "${secret://env/SHOP_SECRET}"
    process = script(
        "p",
        'echo "key: $KEY"; exec sleep 1000',
        env={"KEY": reference},
        ready_strategy="log",
        ready_params={"pattern": "key"},
    )
    service = {
        "name": "shop",
        "class": "secret_shop:ShopService",
        "configuration": {"deep": {"key": [f"<{reference}>"]}},
    }
    async with serve({"processes": [process], "services": [service]}) as site:
        texts = {path: (await site.get(path, headers=AUTHORIZED)).text for path in PATHS}
        failed = await site.post("/services/shop/restart")
        assert failed.status_code in (409, 500)
        texts |= {path: (await site.get(path, headers=AUTHORIZED)).text for path in PATHS}
    assert VALUE not in str(texts) + failed.text
    assert "key: ***" in texts["/processes/p/logs"]
    assert "no access with <***>" in texts["/services/shop"]
    assert '"<***>"' in texts["/services/shop"]
