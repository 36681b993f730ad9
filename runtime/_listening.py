"""Where a server listens: at an address of TCP, or at a unix socket that only we can connect to."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import trio

UNIX = "unix:"
_LONGEST_SOCKET_PATH = 107  # bytes: what the kernel has room for
_TEMPORARY_NAME = ".socket-{}"
_HIGHEST_PORT = 65_535
_PORTS_TRIED = 100


class ListenError(Exception):
    """Nobody can listen at *bind*; *problem* says why."""

    bind: str
    problem: str

    def __init__(self, bind: str, problem: str) -> None:
        super().__init__(bind, problem)
        self.bind, self.problem = bind, problem

    def __str__(self) -> str:
        return f"cannot listen at {self.bind}: {self.problem}"


class Bind(NamedTuple):
    """Where to listen: at a *path*, or at *host* and *port*."""

    path: Path | None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"{UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_bind(text: object, base: Path) -> Bind:
    """Return what ``HOST:PORT`` or ``unix:PATH`` means; raise `ValueError`.

    A relative path starts at *base*; port 0 is one that the system chooses.
    """
    if not isinstance(text, str):
        raise ValueError("must be text such as 127.0.0.1:8409, or unix:run/control.sock")  # noqa: TRY004 - a wrong value like any other
    if text.startswith(UNIX):
        return Bind(_parse_path(text.removeprefix(UNIX), base))
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("must be HOST:PORT, or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("has an IPv6 address, which needs brackets: [::1]:8409")
    if not host.isprintable() or not host.strip() or len(host) > 253:
        raise ValueError("has no host that can be one")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _HIGHEST_PORT):
        raise ValueError(f"has no port from 0 to {_HIGHEST_PORT} at its end; 0 takes a free one")
    return Bind(None, host, int(port))


def _parse_path(text: str, base: Path) -> Path:
    if not text or "\0" in text or text.endswith("/"):
        raise ValueError("must name a file behind unix:")
    path = Path(os.path.abspath(base / text))  # noqa: PTH100 - links stay
    try:
        longest = max(len(os.fsencode(path.name)), len(_TEMPORARY_NAME.format("12345678")))
        length = len(os.fsencode(path.parent)) + 1 + longest
    except UnicodeEncodeError:
        raise ValueError("has characters that no path has") from None
    if length > _LONGEST_SOCKET_PATH:
        raise ValueError(
            f"is too long for a socket: {length} bytes, and not {_LONGEST_SOCKET_PATH} at most"
        )
    return path


def check_free(bind: Bind) -> None:
    """Raise `ListenError` when nobody could listen there now; it blocks for a moment.

    What can be told of a name, and not of an address, is told when it is listened at.
    """
    try:
        if bind.path is not None:
            _refuse_live(bind.path)
        elif bind.port and _is_address(bind.host):
            family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
            socket.create_server((bind.host, bind.port), family=family).close()
    except OSError as error:
        raise ListenError(str(bind), _reason(error)) from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return True


def is_of_this_host(listeners: list[Any]) -> bool:
    """Return whether only programs of this host reach these listeners."""
    for each in listeners:
        name = each.socket.getsockname()
        if isinstance(name, tuple) and not ip_address(str(name[0]).partition("%")[0]).is_loopback:
            return False
    return True


@asynccontextmanager
async def open_listeners(
    bind: Bind, *, or_next: bool = False
) -> AsyncGenerator[tuple[str, list[Any]]]:
    """Yield the address, and the listeners at it; raise `ListenError`.

    With *or_next* a port that is taken gives way to the next one that is free.

    A unix socket has the mode 0600 from its first moment, takes the place of one that nobody
    listens at, and is gone afterwards.
    """
    try:
        if bind.path is not None:
            made = await trio.to_thread.run_sync(_listen_at_path, bind.path)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(made))
            address, listeners = str(bind), [listener]
        else:
            address, listeners = await _listen_at_port(bind, or_next=or_next)
    except OSError as error:
        raise ListenError(str(bind), _reason(error)) from error
    try:
        yield address, listeners
    finally:
        for each in listeners:
            each.socket.close()
        if bind.path is not None:
            _remove_own(bind.path)


def _reason(error: OSError) -> str:
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return words or str(error)


async def _listen_at_port(bind: Bind, *, or_next: bool) -> tuple[str, list[Any]]:
    last = min(bind.port + _PORTS_TRIED, _HIGHEST_PORT) if or_next else bind.port
    while True:
        try:
            listeners = await trio.open_tcp_listeners(bind.port, host=bind.host)
            break
        except OSError as error:
            if bind.port >= last or not _is_taken(error):
                raise
            bind = bind._replace(port=bind.port + 1)
    if not bind.port:  # a name with two addresses would get two ports
        for more in listeners[1:]:
            more.socket.close()
        del listeners[1:]
    host, port, *_ = listeners[0].socket.getsockname()
    return str(Bind(None, bind.host if bind.port else str(host), int(port))), listeners


def _is_taken(error: OSError) -> bool:
    causes: list[BaseException | None] = [error]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    return any(isinstance(e, OSError) and e.errno == errno.EADDRINUSE for e in causes)


def _listen_at_path(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Between the look at who listens there and the replacement nobody else may do the same.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _refuse_live(path)
        return _bind_and_rename(path)
    finally:
        os.close(folder)


def _refuse_live(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "something else is there, which is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:  # so many wait there that there is no room for us
            pass
    raise OSError(errno.EADDRINUSE, "another program listens there")


def _bind_and_rename(path: Path) -> socket.socket:
    temporary = path.parent / _TEMPORARY_NAME.format(token_hex(4))
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode that the socket has before; a umask would be that of all threads.
        os.fchmod(made.fileno(), 0o600)
        made.bind(str(temporary))
        try:
            temporary.chmod(0o600)  # where a umask took of that, or the system knows no such thing
            made.listen()
            temporary.rename(path)
        except BaseException:
            temporary.unlink()
            raise
    except BaseException:
        made.close()
        raise
    return made


def _remove_own(path: Path) -> None:
    """Remove a socket that nobody listens at any more; another server's stays."""
    with suppress(OSError):
        _refuse_live(path)
        path.unlink()
