"""Checks under which host names the service is called, and which web pages call it.

A foreign web page can reach a service on loopback through the browser of a visitor in two ways. The page can use a host
name that resolves to 127.0.0.1 ("DNS rebinding"), which the Host header shows. Or it can send a cross-site request,
which the Origin header shows.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from polypath.serve.errors import RequestRejected

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:@/?#\\\[\]]+)(:[0-9]{0,5})?")
_ALLOWED = re.compile(r"(\*\.)?[^\s:*@/?#\\\[\]]+|[0-9a-f:.]+")
_ORIGIN = re.compile(r"\*|null|https?://[^\s@/?#\\]+")


@dataclass(frozen=True)
class Callers:
    """The allowed hosts and origins. Loopback and the address to which a connection was made are always allowed hosts.
    The service's own pages are always allowed origins.

    Args:
        hosts: further host names: ``example.org``, ``*.example.org``, or ``*`` for any.
        origins: origins of foreign pages that may call the service: ``https://example.org``, or ``*`` for any.

    Raises:
        ValueError: a value is not a host name, or not an origin.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for host in self.hosts:
            if host != "*" and not _ALLOWED.fullmatch(host.lower()):
                raise ValueError(f"hosts: {host!r}: must be a name or address without port, *.NAME, or *")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"origins: {origin!r}: must be http://HOST[:PORT], https://HOST[:PORT], null, or *")

    def check(self, headers: Mapping[bytes, bytes], local: str | None) -> None:
        """Check the host and the origin of a request.

        Args:
            headers: headers of the request, with names in lower case.
            local: the address to which the connection was made.

        Raises:
            RequestRejected: 421, the host is not allowed; 403, the origin is not allowed.
        """
        host, origin = (headers[name].decode("latin-1") if name in headers else None for name in (b"host", b"origin"))
        if host is not None and not self._is_host(host, local):  # HTTP/1.0 requests may have no host
            legal = "localhost, the address listened on, or a name allowed by --allow-host"
            raise RequestRejected(
                421, "the Host header is not a name of this service", field="Host", value=host, legal=legal
            )
        if origin is not None and not self._is_origin(origin, host):
            legal = "the service's own pages, or an origin allowed by --cors"
            raise RequestRejected(
                403, "the request comes from a web page of another origin", field="Origin", value=origin, legal=legal
            )

    def _is_host(self, text: str, local: str | None) -> bool:
        name = _name(text)
        if name is None:
            return False
        if is_loopback(name) or (local is not None and name == _bare(local)):
            return True
        return any(
            name == _bare(host) or host == "*" or (host.startswith("*.") and name.endswith(host[1:].lower()))
            for host in self.hosts
        )

    def _is_origin(self, text: str, host: str | None) -> bool:
        own = () if host is None else (f"http://{host.lower()}", f"https://{host.lower()}")  # a proxy may terminate TLS
        return "*" in self.origins or text in self.origins or text.lower() in own


@lru_cache(64)  # clients use few names, and parsing an address takes as long as reading the rest of a head
def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(_bare(host)).is_loopback
    except ValueError:
        return host == "localhost"


def _name(text: str) -> str | None:
    """Return the host of ``HOST[:PORT]``, or None if the text has another form."""
    found = _HOST.fullmatch(text.lower())
    return _bare(found["name"]) if found else None


@lru_cache(64)
def _bare(name: str) -> str:
    """Return a name or address in a standard spelling."""
    name = name.lower().strip("[]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)
