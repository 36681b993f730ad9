"""Ready when a web server gives the right answer."""

import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

import trio
from pydantic import AfterValidator, BeforeValidator, Field

from runtime import _late
from runtime._specs import FilePath, IsNumber, Text
from runtime.process.host import Host

from ._candidate import Candidate, Strategy, probing
from ._params import Expression, Params, Places
from .tcp import is_its_own, open_tcp, open_unix, socket_path, still_runs

_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_NO_URL_CHARACTER = re.compile(r"[^!-~]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_HEADER_VALUE = re.compile(r"[^\t -~\x80-\xff]")
_MOST_HEADER_BYTES = 65_536
_SEARCHED_BYTES = 1024 * 1024
# With all that frames the text, and what comes before the answer; nobody needs so much.
_MOST_BYTES = 4 * _SEARCHED_BYTES
_CHUNK = 4_096  # of which an answer in tiny pieces makes hundreds of events
_MOST_EARLY_ANSWERS = 20
# They say how the request goes over the wire, which is not for a manifest to say.
_OURS = frozenset({"connection", "content-length", "expect", "transfer-encoding", "upgrade"})


def _url(text: str) -> str:
    if _NO_URL_CHARACTER.search(text):
        raise ValueError("must be of ASCII without spaces; percent-encode all else")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:  # a port that is none, a bracket that is not closed
        raise ValueError(f"is no URL: {error}") from None
    name = parts.hostname or ""
    is_host = ":" in name or _HOST_NAME.fullmatch(name)
    if parts.scheme not in _PORTS or port == 0 or not is_host:
        raise ValueError("must be a URL such as http://localhost:8000/healthz")
    if "@" in parts.netloc:
        raise ValueError("must not have a user in it; `headers` has an Authorization")
    return text


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("is no name of a header")
    if name.lower() in _OURS:
        raise ValueError("is not for a check to say")
    return name


def _header_value(value: str) -> str:
    if _NO_HEADER_VALUE.search(value) or value != value.strip():
        raise ValueError("is no value of a header: one line of Latin-1, without spaces around it")
    return value


def _each_once(headers: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("has a header twice; capital letters make no difference")
    return headers


def _as_list(value: object) -> object:
    return value if isinstance(value, list) or value is None else [value]


Url = Annotated[str, Field(max_length=8_000), AfterValidator(_url)]
StatusCode = Annotated[int, Field(ge=200, le=599), IsNumber]
StatusCodes = Annotated[
    list[StatusCode],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=StatusCode | list[StatusCode]),
]
HeaderName = Annotated[Text, AfterValidator(_header_name)]
HeaderValue = Annotated[Text, AfterValidator(_header_value)]
Headers = Annotated[dict[HeaderName, HeaderValue], AfterValidator(_each_once)]


class HttpParams(Params):
    """What is asked for, and the answer that says that the process is ready."""

    url: Url = Field(
        description="What is asked for by GET, http or https; no redirect is followed.",
        examples=["http://localhost:8000/healthz"],
    )
    status: StatusCodes | None = Field(
        default=None,
        description="The status that is right, or a list of these; unset: any from 200 to 399.",
        examples=[200, [200, 401]],
    )
    body: Expression | None = Field(
        default=None,
        description="A regular expression of Python's that is searched in the answer's text, in its"
        " first MiB; unset: any text will do.",
        examples=['"status": *"ok"'],
    )
    headers: Headers = Field(
        default={},
        description="Headers of the request; unset: the usual ones.",
        examples=[{"Authorization": "Bearer ${TOKEN}"}],
    )
    unix: FilePath | None = Field(
        default=None,
        description="A unix socket to connect to in place of the URL's host, relative to the base"
        " directory; unset: none.",
        examples=["run/api.sock"],
    )
    verify: bool = Field(
        default=True, description="Whether the certificate of https must be valid for the host."
    )

    def resolve(self, places: Places) -> Self:
        """Make the socket's path absolute."""
        if self.unix is None:
            return self
        return self.model_copy(update={"unix": socket_path(self.unix, places)})


async def probe_http(params: HttpParams, host: Host, candidate: Candidate) -> bool:
    """Return whether a GET of ``url`` has the right answer; a broken answer is a wrong one.

    On this host it must not be a stranger who has the port, as far as that can be told.
    """
    url, broken = urlsplit(params.url), _late.h11().ProtocolError
    candidate.obstacle = f"{params.url} has not accepted a connection yet"
    transport: trio.SocketStream | None = None
    try:
        transport = await _connect(params, url)
        if not await _may_be_its_own(params, url, host, candidate):
            return False
        candidate.obstacle = f"{params.url} has not answered yet"
        answer = _Answer(params)
        await answer.receive(await _secure(transport, params, url, host), _request(params, url))
    except (OSError, trio.BrokenResourceError, broken) as error:
        candidate.obstacle = f"{params.url}: {_in_words(error)}"
        return False
    finally:
        if transport is not None:
            transport.socket.close()
    if wrong := answer.find_wrong():
        candidate.obstacle = f"{params.url} {wrong}"
    return not wrong


def _in_words(error: Exception) -> str:
    """Return what is wrong; Trio hides what TLS says behind a sentence of its own."""
    if isinstance(error, trio.BrokenResourceError):
        return str(error.__cause__ or "the connection has broken")
    return str(error)


async def _connect(params: HttpParams, url: SplitResult) -> trio.SocketStream:
    if params.unix is not None:
        return await open_unix(params.unix)
    return await open_tcp(url.hostname or "", _port(url))


def _port(url: SplitResult) -> int:
    return url.port or _PORTS[url.scheme]


async def _may_be_its_own(
    params: HttpParams, url: SplitResult, host: Host, candidate: Candidate
) -> bool:
    if params.unix is not None:
        return still_runs(candidate)
    return await is_its_own(url.hostname or "", _port(url), host, candidate)


async def _secure(
    transport: trio.SocketStream, params: HttpParams, url: SplitResult, host: Host
) -> trio.abc.Stream:
    if url.scheme == "http":
        return transport
    # It reads all certificates of this host from the disk.
    context = await trio.to_thread.run_sync(_tls, params.verify, limiter=host.checks)
    return trio.SSLStream(transport, context, server_hostname=url.hostname, https_compatible=True)


@cache
def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _request(params: HttpParams, url: SplitResult) -> Any:  # noqa: ANN401 - an event of h11
    given = {name.lower() for name in params.headers}
    usual = {
        "Host": url.netloc,
        "User-Agent": "trio-runtime",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    headers = [(name, value) for name, value in usual.items() if name.lower() not in given]
    encoded = [
        (name.encode("ascii"), value.encode("latin-1"))
        for name, value in [*headers, *params.headers.items()]
    ]
    query = f"?{url.query}" if url.query else ""
    return _late.h11().Request(method="GET", target=f"{url.path or '/'}{query}", headers=encoded)


class _Answer:
    """What came back: the status, and as much of the text as is searched."""

    def __init__(self, params: HttpParams) -> None:
        self._params = params
        self._status = 0
        self._text = bytearray()
        self._early = 0

    def find_wrong(self) -> str:
        """Return what is wrong with it, nothing when it is right."""
        right = self._params.status
        if right is None and not 200 <= self._status < 400:
            return f"answers {self._status}"
        if right is not None and self._status not in right:
            return f"answers {self._status}, not {' or '.join(map(str, right))}"
        pattern = self._params.body
        if pattern is not None and not re.search(pattern, self._text.decode(errors="replace")):
            return f"answers {self._status}, and its text does not match {pattern!r}"
        return ""

    async def receive(self, stream: trio.abc.Stream, request: Any) -> None:  # noqa: ANN401
        """Send *request* and take the answer to it, no more of it than is looked at."""
        h11 = _late.h11()
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADER_BYTES)
        asked = connection.send(request) + connection.send(h11.EndOfMessage())
        await stream.send_all(asked)
        received = 0
        while not self._take(event := connection.next_event()):
            if event is h11.NEED_DATA:
                chunk = bytes(await stream.receive_some(_CHUNK))
                received += len(chunk)
                if not chunk and not self._status:
                    raise OSError("the connection was closed without an answer")
                if received > _MOST_BYTES:
                    raise OSError(f"the answer has no end within {_MOST_BYTES} bytes")
                connection.receive_data(chunk)

    def _take(self, event: Any) -> bool:  # noqa: ANN401 - of h11
        """Take in an event; return whether it was the last one that matters."""
        h11 = _late.h11()
        if isinstance(event, h11.Response):
            self._status = event.status_code
            return self._params.body is None
        if isinstance(event, h11.Data):
            self._text += event.data[: _SEARCHED_BYTES - len(self._text)]
            return len(self._text) >= _SEARCHED_BYTES
        if isinstance(event, h11.InformationalResponse):
            self._early += 1
            if self._early > _MOST_EARLY_ANSWERS:
                raise OSError("there is no end of answers that announce another one")
        return isinstance(event, h11.EndOfMessage | h11.ConnectionClosed)


HTTP: Strategy[HttpParams] = Strategy(params=HttpParams, wait=probing(probe_http), probe=probe_http)
