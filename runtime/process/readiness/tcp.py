"""Ready when a port, or a unix socket, accepts a connection."""

import os
from pathlib import Path
from typing import ClassVar, Self

import trio
from pydantic import ConfigDict, Field

from runtime import _procfs
from runtime._problems import Problem, ProblemsError, raise_any
from runtime._specs import FilePath, Text
from runtime.process.host import Host

from ._candidate import Candidate, Strategy, probing
from ._params import Params, Places, Port

# Where the process itself has to listen; elsewhere it may be anybody.
_THIS_HOST = ("localhost", "127.0.0.1", "::1")
# Both families of this host without a resolver: a program may listen on one of them only.
_LOCALHOST = ("127.0.0.1", "::1")
_LONGEST_SOCKET_PATH = 107


class TcpParams(Params):
    """What accepts a connection: a port of a host, or a unix socket in their place."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["port"]}, {"required": ["unix"]}]}
    )

    port: Port | None = Field(
        default=None,
        description="The port that accepts a connection; unset: `unix` says where.",
        examples=[5432],
    )
    host: Text | None = Field(
        default=None,
        description="Name or address of the port's host; unset: this host, IPv4 and IPv6.",
        examples=["127.0.0.1"],
    )
    unix: FilePath | None = Field(
        default=None,
        description="The unix socket in place of a port, relative to the base directory; unset:"
        " `port` says where.",
        examples=["run/api.sock"],
    )

    def resolve(self, places: Places) -> Self:
        """Make the socket's path absolute; exactly one of `port` and `unix` must be given."""
        if self.unix is None:
            if self.port is None:
                words = "is missing; the tcp strategy needs it, or `unix`"
                raise ProblemsError([Problem(("port",), words)])
            return self
        raise_any(
            [
                Problem((key,), "means nothing beside `unix`; leave one of them out")
                for key in ("port", "host")
                if getattr(self, key) is not None
            ]
        )
        return self.model_copy(update={"unix": socket_path(self.unix, places)})


def socket_path(path: Path, places: Places) -> Path:
    """Return the absolute path of a unix socket; raise `ProblemsError` where none can be."""
    path = places.base / path
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        words = f"{path} is longer than {_LONGEST_SOCKET_PATH} bytes; no unix socket's path may be"
        raise ProblemsError([Problem(("unix",), words)])
    return path


async def probe_tcp(params: TcpParams, host: Host, candidate: Candidate) -> bool:
    """Return whether ``port`` on ``host`` (default: this host), or ``unix``, accepts a connection.

    On this host it must not be a stranger who has the port, as far as that can be told.
    """
    try:
        if params.unix is not None:
            await trio.aclose_forcefully(await open_unix(params.unix))
            return still_runs(candidate)
        name, port = params.host or "localhost", params.port or 0
        await trio.aclose_forcefully(await open_tcp(name, port))
    except OSError as error:
        candidate.obstacle = str(error)
        return False
    return await is_its_own(name, port, host, candidate)


async def open_tcp(name: str, port: int) -> trio.SocketStream:
    """Connect to a port, of this host in either family; raise `OSError` in words for a person."""
    problem: OSError | UnicodeError | None = None
    for address in _LOCALHOST if name == "localhost" else (name,):
        try:
            return await trio.open_tcp_stream(address, port)
        except (OSError, UnicodeError) as error:  # a name that no host can have
            problem = problem or error
    at = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    # The resolver's words are told. All else is a connection refused, or not answered.
    why = getattr(problem, "strerror", None)
    words = f"nothing accepts a connection at {at}" + (f" ({why})" if why else "")
    raise OSError(words) from problem


async def open_unix(path: Path) -> trio.SocketStream:
    """Connect to a unix socket; raise `OSError` in words for a person."""
    try:
        stream = await trio.open_unix_socket(path)
    except OSError as error:
        words = error.strerror or str(error)
        raise OSError(f"{path} accepts no connection ({words})") from error
    try:
        # Where its queue is full the system says to try again, which looks like being connected.
        stream.socket.getpeername()
    except OSError as error:
        await trio.aclose_forcefully(stream)
        raise OSError(f"{path} accepts no connection (its queue is full)") from error
    return stream


async def is_its_own(name: str, port: int, host: Host, candidate: Candidate) -> bool:
    """Return whether it may be the candidate that listens there; on another host it may be."""
    return name not in _THIS_HOST or await has_port(port, host, candidate)


async def has_port(port: int, host: Host, candidate: Candidate) -> bool:
    """Return whether it is not known to be a stranger who listens on *port* of this host."""
    owner = candidate.port_owner(port, host)
    stranger = None if owner is None else await owner.find_stranger()
    if stranger is None:
        return still_runs(candidate)
    who = f"pid {stranger.pid} ({_procfs.read_name(stranger.pid)})"
    candidate.obstacle = f"port {port} is held by {who}, which is not part of it"
    return False


def still_runs(candidate: Candidate) -> bool:
    """Return whether it is not known to have ended, what it has left behind notwithstanding."""
    if candidate.has_ended():
        candidate.obstacle = "it has ended"
        return False
    return True


TCP: Strategy[TcpParams] = Strategy(params=TcpParams, wait=probing(probe_tcp), probe=probe_tcp)
