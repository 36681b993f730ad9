"""A cache as a service: one connection to the database, and a small server in front of it."""

import trio

from runtime import Service, ServiceConfiguration, ServiceManager


class CacheConfiguration(ServiceConfiguration):
    port: int
    db_port: int


class CacheManager(ServiceManager):
    def __init__(self, service: "CacheService", config: CacheConfiguration) -> None:
        super().__init__(service.logger)
        self.service, self.config = service, config

    async def start(self) -> None:
        self.known: dict[str, str] = {}
        self.turn = trio.Lock()
        self.db = await trio.open_tcp_stream("127.0.0.1", self.config.db_port)
        listeners = await trio.open_tcp_listeners(self.config.port, host="127.0.0.1")
        self.nursery.start_soon(trio.serve_listeners, self.talk, listeners)
        self.logger.info("open")

    async def stop(self) -> None:
        await self.db.aclose()
        self.logger.info("closed; %d items were known", len(self.known))

    async def talk(self, client: trio.SocketStream) -> None:
        try:
            name = (await client.receive_some(1000)).decode().strip()
            await client.send_all(f"{await self.find(name)}\n".encode())
        except trio.BrokenResourceError:
            pass  # this client has gone; no reason for the service to fail
        finally:
            await trio.aclose_forcefully(client)

    async def find(self, name: str) -> str:
        async with self.turn:
            if name not in self.known:
                self.known[name] = await self.ask(name)
                self.service.set_metadata({"known": len(self.known)})
        return self.known[name]

    async def ask(self, name: str) -> str:
        await self.db.send_all(f"{name}\n".encode())
        answer = await self.db.receive_some(1000)
        if not answer:
            raise ConnectionError("the database has hung up")
        return answer.decode().strip()


class CacheService(Service):
    configuration_class = CacheConfiguration

    def create_manager(self) -> CacheManager:
        return CacheManager(self, self.config)
