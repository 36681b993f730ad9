"""Ready when a port accepts a connection."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio

from runtime import _procfs
from runtime.process.host import Host

from ._candidate import Candidate, Strategy, probing

# Where the process itself has to listen; elsewhere it may be anybody.
_THIS_HOST = ("localhost", "127.0.0.1", "::1")


async def probe_tcp(params: Mapping[str, Any], host: Host, candidate: Candidate) -> bool:
    """Return whether ``port`` on ``host`` (default: this host) accepts a connection.

    On this host it must not be a stranger who does, as far as that can be told.
    """
    port, name = int(params["port"]), str(params.get("host", "localhost"))
    # Both families of this host without a resolver: a program may listen on one of them only.
    addresses = ["127.0.0.1", "::1"] if name == "localhost" else [name]
    candidate.obstacle = ""
    for address in addresses:
        with suppress(OSError):
            await (await trio.open_tcp_stream(address, port)).aclose()
            return name not in _THIS_HOST or await has_port(port, host, candidate)
    return False


async def has_port(port: int, host: Host, candidate: Candidate) -> bool:
    """Return whether it is not known to be a stranger who listens on *port* of this host."""
    owner = candidate.port_owner(port, host)
    stranger = None if owner is None else await owner.find_stranger()
    if stranger is None:
        return not candidate.has_ended()
    who = f"pid {stranger.pid} ({_procfs.read_name(stranger.pid)})"
    candidate.obstacle = f"port {port} is held by {who}, which is not part of it"
    return False


TCP = Strategy(wait=probing(probe_tcp), probe=probe_tcp, needs=("port",))
