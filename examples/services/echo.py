"""A Trio TCP server as a service: python examples/services/echo.py 8775, and Ctrl-C to stop it."""

import logging
import signal
import sys

import trio
from pydantic import Field

from runtime import Application, Service, ServiceConfiguration, ServiceManager


class EchoConfiguration(ServiceConfiguration):
    port: int = Field(default=0, description="Where it listens; 0: wherever there is room.")


class EchoManager(ServiceManager):
    def __init__(self, service: "EchoService", config: EchoConfiguration) -> None:
        super().__init__(service.logger)
        self.service, self.config = service, config

    async def start(
        self, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until the stop; `serve_tcp` reports started, and so is the service ready."""
        self.listening, self.closed = trio.CancelScope(), trio.Event()
        self.clients, self.nobody = 0, trio.Event()
        with self.listening:
            await trio.serve_tcp(
                self.talk,
                self.config.port,
                host="127.0.0.1",
                handler_nursery=self.nursery,  # so clients outlive the listening
                task_status=task_status,
            )
        self.closed.set()

    async def stop(self) -> None:
        """Take no more clients, and wait for those that are there, as long as a stop may take."""
        self.listening.cancel()
        await self.closed.wait()
        if self.clients:
            self.logger.info("waiting for %d clients", self.clients)
            await self.nobody.wait()

    async def talk(self, client: trio.SocketStream) -> None:
        self.clients += 1
        try:
            async for data in client:
                await client.send_all(data)
        except trio.BrokenResourceError:
            pass  # one client that breaks off is no failure of the service
        finally:
            self.clients -= 1
            if self.clients == 0:
                self.nobody.set()
            await trio.aclose_forcefully(client)


class EchoService(Service):
    configuration_class = EchoConfiguration

    def create_manager(self) -> EchoManager:
        return EchoManager(self, self.config)


async def main(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with Application() as app:
            echo = app.register_service(EchoService, timeout=10)
            await echo.configure_and_start({"port": port})
            print(f"{echo.name} is {echo.status.state}", flush=True)
            await anext(signals)  # then the block is left, and all of it stops
    print(f"{echo.name} is {echo.status.state}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main, int(sys.argv[1]))
