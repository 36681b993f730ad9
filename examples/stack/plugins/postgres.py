"""A readiness check: PostgreSQL accepts connections a while before it can answer queries."""

import ctypes

import trio

from runtime.plugin import Plugin, ReadyStrategyType
from runtime.process import Process

libpq = ctypes.CDLL("libpq.so.5")
PING_OK = 0


async def answers_queries(process: Process, interval_sec: float) -> bool:
    """Return True once the server says so; the limit is the process's ``ready_timeout_sec``."""
    server = str(process.ready_params["server"]).encode()
    while True:
        answer = await trio.to_thread.run_sync(libpq.PQping, server, abandon_on_cancel=True)
        if answer == PING_OK:
            return True
        await trio.sleep(interval_sec)


class Postgres(Plugin):
    """Provides ``ready_strategy: postgres``."""

    def get_ready_strategies(self) -> dict[str, ReadyStrategyType]:
        return {"postgres": answers_queries}
