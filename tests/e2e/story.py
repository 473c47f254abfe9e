"""What happens to Services in one world while certificates roll over, and all that was seen."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from e2e.harness import SERVED, Certbaton, not_before, proofs, until
from e2e.history import History
from e2e.sampling import ChangeSampler
from lab.audit import AuditEvent
from lab.oci.prober import Prober
from lab.world import NAMESPACE, World

Obj = dict[str, Any]
Ref = tuple[str, str]

# Certificate → its Services. No name is part of another, so that requests can be told apart.
DUO: list[Ref] = [("north", "duo-front"), ("south", "duo-shop")]
WILD: list[Ref] = [("north", "wild")]
SLOW: list[Ref] = [("west", "slow")]
THEIRS = {
    "example.test/owner": "the shop",
    "service.beta.kubernetes.io/oci-load-balancer-shape": "flexible",
}
PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "metrics", "port": 9100, "targetPort": "metrics"},
]


@dataclass
class Story:
    """One world after its rollovers, the daemon stopped."""

    world: World
    history: History
    sampler: ChangeSampler
    probers: dict[Ref, Prober]
    before: dict[Ref, Obj]
    ended: datetime

    def end(self) -> None:
        """Stop the daemon; nothing happens any more."""
        self.world.stop_daemon()
        self.ended = datetime.now(UTC)

    def versions(self, certificate: str) -> list[Obj]:
        """All versions that there ever were of a certificate, oldest first, as they were last."""
        last: dict[str, Obj] = {}
        for state in self.history.states("Secret"):
            if state.obj is None or state.obj["type"] != "kubernetes.io/tls":
                continue
            if state.obj["metadata"]["labels"]["certbaton.io/certificate"] == certificate:
                last[state.key[1]] = state.obj
        return sorted(last.values(), key=not_before)

    def done(self, action: str, certificate: str) -> list[Obj]:
        """The daemon's lines about an action that it carried out."""
        return [
            line
            for line in self.world.lines
            if (line.get("event"), line.get("action"), line.get("certificate"))
            == ("done", action, certificate)
        ]

    def requests(self, since: datetime, until: datetime, *names: str) -> list[AuditEvent]:
        """The daemon's API requests that have to do with one of *names*."""
        return [
            event
            for event in self.world.plane.audit(self.world.user, since, until)
            if any(name in event.name or name in event.uri for name in names)
        ]


def begin(
    stack: ExitStack, world: World, certificates: dict[str, list[Ref]], due_at: float
) -> Story:
    """Make the Services, watch everything, start the daemon; due at that share of the lifetime."""
    entries = []
    before: dict[Ref, Obj] = {}
    for name, services in certificates.items():
        for namespace, service in services:
            world.add_service(namespace, service, annotations=THEIRS, ports=PORTS)
        names = [f"{name}.example.test"]
        world.set_a(names[0], world.address_of(*services[0]))
        if name == "wild":
            names.append("*.wild.example.test")
        solver = "dns" if name == "wild" else "http"
        entries.append(world.certificate(name, names, services, solver=solver))
        before |= {ref: world.service(*ref) for ref in services}
    policy = {"renewLeftShort": round(1 - due_at, 3), "pollListener": "250ms"}
    world.install(world.configuration(*entries, policy=policy))
    history = stack.enter_context(History(world.plane.admin, NAMESPACE))
    sampler = stack.enter_context(ChangeSampler(world.cloud))
    probers = {
        ref: stack.enter_context(
            Prober(world.address_of(*ref), world.ports(443), f"{name}.example.test")
        )
        for name, services in certificates.items()
        for ref in services
    }
    world.start_daemon()
    return Story(world, history, sampler, probers, before, datetime.now(UTC))


def follow(story: Story, certificates: dict[str, list[Ref]], versions: int) -> None:
    """Wait until so many versions were served everywhere and all but two are collected."""
    certbaton = Certbaton(story.world, story.world.config)

    def rests(name: str, services: list[Ref]) -> bool:
        held = certbaton.versions(name)
        everywhere = {f"{namespace}/{service}" for namespace, service in services}
        return (
            len(story.versions(name)) >= versions
            and len(held) == 2
            and set(proofs(held[-1])) == everywhere
            and "pending" not in certbaton.journal(name)
        )

    def all_rest() -> bool:
        assert story.world.daemon.running, story.world.daemon.log_tail()
        return all(rests(name, services) for name, services in certificates.items())

    until(all_rest, f"there never were {versions} versions at rest", 240)


def served_at(story: Story, version: str, ref: Ref) -> int:
    """The revision from which it was noted that *ref* serves *version*."""
    for state in story.history.states("Secret"):
        if state.key[1] == version and state.obj is not None:
            noted = state.obj["metadata"].get("annotations", {}).get(SERVED, "{}")
            if "/".join(ref) in json.loads(noted):
                return state.version
    raise AssertionError(f"{version} was never noted as served at {ref}")
