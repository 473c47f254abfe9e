"""
The Kubernetes API, as certbaton uses it: the only package that imports kubernetes.

`Api` talks to the server, `Cluster` holds what certbaton knows of it, `Lease` says whether this
process may write, and `FencedApi` sees to it. Nothing here decides anything else. ``Api`` is
imported when it is asked for, so that tests and tools on the in-memory fake need not load the
client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certbaton.cluster.contract import AlreadyExists, Expired, Kind, KubeApi, Obj
from certbaton.cluster.facade import Cluster
from certbaton.cluster.fence import FencedApi
from certbaton.cluster.lease import Lease, NotLeading
from certbaton.cluster.store import KEEP

if TYPE_CHECKING:
    from certbaton.cluster.api import Api

__all__ = [
    "KEEP",
    "AlreadyExists",
    "Api",
    "Cluster",
    "Expired",
    "FencedApi",
    "Kind",
    "KubeApi",
    "Lease",
    "NotLeading",
    "Obj",
]


def __getattr__(name: str) -> Any:
    if name == "Api":
        from certbaton.cluster.api import Api

        return Api
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
