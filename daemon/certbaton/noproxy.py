"""
Which hosts NO_PROXY exempts: the same for CAs and the API server.

The libraries for the two read it differently, and each leaves out forms that Go's programs know,
which most others in a cluster are: networks of IPv6, ``*.example.com``, ``*`` among others, and
``example.com:443``. The chart adds the API server's address to what the user wrote.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
# a name or an IPv4 address or network, an IPv6 one bare or in brackets; a port where that is clear
_ENTRY = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")


def exempts(no_proxy: str, url: str) -> bool:
    """
    Say whether *url* is reached without a proxy, by NO_PROXY's value *no_proxy*.

    A name counts for all below it, with or without a dot in front. Never raises.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return False
    return any(_covers(entry.strip().lower(), host, port) for entry in no_proxy.split(","))


def _covers(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    found = _ENTRY.fullmatch(entry)
    if found is not None:
        entry = found["v6"] or found["name"] or ""
        if found["port"] is not None and int(found["port"]) != port:
            return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
