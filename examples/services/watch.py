"""Looks at a web server regularly, and fails when that does not answer as it should."""

import httpx
import trio
from pydantic import PositiveFloat

from runtime import Service, ServiceConfiguration, ServiceManager


class WatchConfiguration(ServiceConfiguration):
    url: str
    every_sec: PositiveFloat = 10


class WatchManager(ServiceManager):
    def __init__(self, service: "WatchService", config: WatchConfiguration) -> None:
        super().__init__(service.logger)
        self.service, self.config = service, config

    async def start(self) -> None:
        self.client = httpx.AsyncClient(timeout=5)  # finds out by itself that it runs under Trio
        await self.look(1)  # so it is ready only when the server has answered once
        self.nursery.start_soon(self.look_regularly)

    async def stop(self) -> None:
        await self.client.aclose()

    async def look_regularly(self) -> None:
        number = 1
        while True:
            await trio.sleep(self.config.every_sec)
            number += 1
            await self.look(number)

    async def look(self, number: int) -> None:
        answer = await self.client.get(self.config.url)
        answer.raise_for_status()
        self.service.set_metadata({"looks": number, "status": answer.status_code})
        self.logger.info("look %d: %d", number, answer.status_code)


class WatchService(Service):
    configuration_class = WatchConfiguration

    def create_manager(self) -> WatchManager:
        return WatchManager(self, self.config)
