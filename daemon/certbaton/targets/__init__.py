"""
Clouds: how a Service names its Secret. Pure codecs; no I/O.

Each target is found by an entry point of the group ``certbaton.targets``.
"""

from __future__ import annotations

from typing import Any, Protocol

from certbaton.model import Binding, ObjectRef, ServiceSpec, ServiceState


class Target(Protocol):
    """One cloud's way of naming a certificate on a Service."""

    def bind(self, state: ServiceState, service: ServiceSpec) -> Binding:
        """Read *state* against what *service* asks for; never raises."""
        ...

    def body(self, state: ServiceState, service: ServiceSpec, secret: ObjectRef) -> dict[str, Any]:
        """
        Give the whole server-side apply body that makes *state* name *secret*.

        Always all that certbaton owns: an apply that leaves out what it owned
        removes it. Raises ConfigurationError where `bind` tells a problem.
        """
        ...
