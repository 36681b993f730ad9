"""Who may do what: hosts that a request may name, and the token."""

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
#: Methods that change nothing.
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_SHOWING = frozenset({"GET", "HEAD"})
#: What is the same for every tree and tells nothing of this one: the pages, which ask for the token
#: themselves, and the description of the routes.
_OPEN = frozenset({"/ui", "/docs", "/openapi.json"})
_OPEN_FOLDERS = ("/ui/", "/docs/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a server asks of a request.

    *token* is what changing something takes, and with *token_to_read* reading as well, all but the
    files of the pages and the description of the routes; None where the way to the server is
    proof enough, as with a unix socket of mode 0600. *hosts* are names
    that a request may give as its host, beside this host's own and any address; with *any_host* it
    may be anything.
    """

    token: str | None
    token_to_read: bool = False
    hosts: Collection[str] = ()
    any_host: bool = False

    def admits_host(self, host: str) -> bool:
        """Return whether a request may be for *host*, the value of its header.

        A page of somebody else whose name is made to lead here (DNS rebinding) has that name in
        the header. An address cannot be made so.
        """
        if self.any_host:
            return True
        name = _without_port(host)
        return name in _LOCAL_NAMES or name in self.hosts or _is_address(name)

    def admits(self, method: str, path: str, authorization: str | None) -> bool:
        """Return whether a request with this header may do with *path* what *method* does."""
        if self.token is None or (method in READING and not self.token_to_read):
            return True
        if method in _SHOWING and (path in _OPEN or path.startswith(_OPEN_FOLDERS)):
            return True
        scheme, _, given = (authorization or "").partition(" ")
        wanted = self.token.encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), wanted)


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removesuffix("."))
    except ValueError:
        return False
    return True
