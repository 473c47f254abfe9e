"""
Clouds: how a Service names its Secret. Pure codecs; no I/O.

Each target is found by an entry point of the group ``certbaton.targets``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from certbaton.errors import ConfigurationError
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

    def without_secret(self, state: ServiceState) -> dict[str, Any]:
        """Give the merge patch after which *state* names no Secret."""
        ...


def load(name: str) -> Target:
    """Build the target that is installed as *name*; ConfigurationError if there is none."""
    for entry in entry_points(group="certbaton.targets", name=name):
        return cast(Target, entry.load()())
    raise ConfigurationError(f"there is no target {name!r} installed")
