"""Connections that reach the open internet only: neither this machine, nor its network, nor a cloud's metadata.

A host is resolved once, when it is connected, and only an address that was checked is spoken to: a name cannot say one
thing when it is asked and another when it is used (DNS rebinding). The exception are hosts a person trusts by name.
"""

import ipaddress
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

MAX_ADDRESSES = 4  # of a host that are tried: its owner may name thousands, each silent
LOOKUP_SECONDS = 10.0


class Refusal(Exception):
    """A hop that may not be taken."""


def open_session(trusted_hosts: Sequence[str], sockets: list[socket.socket]) -> requests.Session:
    """Returns a session for public https addresses, and for both schemes of the trusted hosts (host:port).

    A handle of each connection it opens is added to `sockets`: who has them can cut a connection, and must close them.
    Raises Refusal where a connection would reach an address that is not public.
    """
    session = _Session()
    session.adapters.clear()  # nothing but what is mounted here can be asked: not http, not file
    session.mount("https://", _Adapter(sockets, is_checked=True))
    for host in trusted_hosts:
        for scheme in ("http", "https"):
            session.mount(f"{scheme}://{host}/", _Adapter(sockets, is_checked=False))
    return session


class _Session(requests.Session):
    """A session that carries no credentials, and leaves redirects to the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.clear()
        self.headers.update({"User-Agent": "graded-corpus", "Accept-Encoding": "identity"})
        self.auth = _as_it_is  # or requests would look into ~/.netrc

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Returns None: requests would read the whole body of every redirect first, however long."""


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    """Opens connections of the two kinds below. A trusted host is on the person's own network: no proxy is asked."""

    def __init__(self, sockets: list[socket.socket], is_checked: bool) -> None:
        self._sockets, self._is_checked = sockets, is_checked
        super().__init__()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        proxies = (proxies or {}) if self._is_checked else {}
        if select_proxy(request.url or "", proxies):  # the proxy connects, so what can be checked is checked before
            with suppress(socket.gaierror):
                _public_addresses(urlsplit(request.url or "").hostname or "", 443, LOOKUP_SECONDS)
        return super().send(request, stream, timeout, verify, cert, proxies)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        kind = _TLSConnection if pool.scheme == "https" else _Connection
        pool.ConnectionCls = partial(kind, self._sockets, self._is_checked and pool.proxy is None)
        return pool


class _Connection(HTTPConnection):
    """A connection that leaves a handle of itself and, if checked, reaches public addresses only."""

    def __init__(self, sockets: list[socket.socket], is_checked: bool, *args: Any, **options: Any) -> None:
        self._sockets, self._is_checked = sockets, is_checked
        super().__init__(*args, **options)

    def _new_conn(self) -> socket.socket:
        opened = self._checked_connection() if self._is_checked else super()._new_conn()
        self._sockets.append(opened.dup())  # TLS takes the first handle away
        return opened

    def _checked_connection(self) -> socket.socket:
        name = self._dns_host
        seconds = self.timeout if isinstance(self.timeout, int | float) else LOOKUP_SECONDS
        try:
            addresses = _public_addresses(name, self.port or 443, seconds)
        except socket.gaierror as error:
            raise NewConnectionError(self, f"NameResolution: {error}") from error
        for i, address in enumerate(addresses):
            try:
                self._dns_host = address  # what was checked is connected, so no second look-up can say otherwise
                opened = super()._new_conn()
            except HTTPError:
                if i == len(addresses) - 1:
                    raise
                continue
            finally:
                self._dns_host = name
            peer = str(opened.getpeername()[0])
            if not is_public(peer):
                opened.close()
                raise Refusal(f"{peer} is no public address")
            return opened
        raise NewConnectionError(self, f"NameResolution: {name} has no address")


class _TLSConnection(_Connection, HTTPSConnection):
    """The same, with TLS above it."""


def _public_addresses(host: str, port: int, seconds: float) -> list[str]:
    """Returns the first few addresses of a host. Raises Refusal when any of all is not public, or gaierror."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)  # the system's own look-up takes no time limit
    thread.start()
    thread.join(seconds)
    if not found or isinstance(found[0], Exception):
        raise socket.gaierror(str(found[0]) if found else "no answer")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found[0]))
    for address in addresses:
        if not is_public(address):
            raise Refusal(f"{address} is no public address")
    return addresses[:MAX_ADDRESSES]


_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(address: str) -> bool:
    """Returns whether an IP address is one of the open internet; one that stands for another is judged as that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if inner := ip.ipv4_mapped or ip.sixtofour:
            return is_public(str(inner))
        if ip.teredo or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
