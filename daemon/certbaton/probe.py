"""
Looking at listeners: which certificate is served there?

Evidence, not trust: the chain is not verified, and names and dates are not
looked at, because an expired or wrong certificate is an answer too. Whether
what is seen testifies to anything (`Route`) is for others to say.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from certbaton.model import Sight

# `Sight.trouble` begins with this where the other side refused by an alert (RFC 8446 section 6).
ALERT = "TLS alert"

_WORKERS = 8

# What OpenSSL says of bytes that are no TLS record, such as an answer of plain HTTP.
_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
}
_ALERT_REASON = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(.+)")


def look(
    addresses: Sequence[str], ports: Sequence[int], server_name: str, timeout: float
) -> tuple[Sight, ...]:
    """
    Shake hands with every address on every port, asking for *server_name* (SNI).

    *timeout* is in seconds and bounds each handshake from the first packet to
    the certificate, whatever the other side does; up to 8 run at a time.
    Returns one Sight for each address and port, in that order, and raises
    nothing: what went wrong is its ``trouble``. A host name in place of an
    address is resolved first, in the resolver's own time.

    A listener of TLS 1.2 alone that insists on a client certificate shows up
    as an alert: Python hands out a certificate only after the handshake.
    """
    places = [(address, port) for address in addresses for port in ports]
    if not places:
        return ()
    context = _context()

    def once(place: tuple[str, int]) -> Sight:
        return _look_once(context, *place, server_name=server_name, timeout=timeout)

    if len(places) == 1:
        return (once(places[0]),)
    with ThreadPoolExecutor(min(_WORKERS, len(places)), thread_name_prefix="probe") as pool:
        return tuple(pool.map(once, places))


def server_name_for(names: Sequence[str]) -> str:
    """
    Choose the server name to ask for, of a certificate's *names* (at least one).

    The first that is no wildcard; of wildcards alone, a name under the first.
    """
    for name in names:
        if not name.startswith("*."):
            return name
    return f"certbaton-probe.{names[0].removeprefix('*.')}"


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whatever shows a certificate: also the CBC suites and small keys of old listeners.
    context.set_ciphers("ALL:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0")
    return context


def _look_once(
    context: ssl.SSLContext, address: str, port: int, server_name: str, timeout: float
) -> Sight:
    try:
        leaf = _leaf(context, address, port, server_name, time.monotonic() + timeout)
    except (OSError, ValueError) as error:
        trouble = _trouble(error)
        return Sight(address, port, None, trouble, alert=trouble.startswith(ALERT))
    if not leaf:
        return Sight(address, port, None, "TLS without a certificate")
    return Sight(address, port, hashlib.sha256(leaf).hexdigest())


def _leaf(
    context: ssl.SSLContext, address: str, port: int, server_name: str, deadline: float
) -> bytes | None:
    with (
        _connect(address, port, deadline) as plain,
        context.wrap_socket(
            plain, server_hostname=server_name or None, do_handshake_on_connect=False
        ) as secure,
    ):
        # The socket's timeout bounds the whole of do_handshake, not each read within.
        secure.settimeout(_left(deadline))
        secure.do_handshake()
        return secure.getpeercert(binary_form=True)


def _connect(address: str, port: int, deadline: float) -> socket.socket:
    trouble: OSError = OSError("no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(place)
        except OSError as error:
            sock.close()
            trouble = error
        else:
            return sock
    raise trouble


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _trouble(error: Exception) -> str:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "no TLS there: closed during the handshake"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        alert = _ALERT_REASON.fullmatch(reason)
        if alert:
            return f"{ALERT} {alert[1].lower()}"
        kind = "no TLS there" if reason in _NOT_TLS else "TLS"
        return f"{kind}: {reason.lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if isinstance(error, socket.gaierror):
        return "the address cannot be resolved"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return f"cannot be asked for: {error}"  # a server name that is no host name
