"""The faults of the place: OCI, its controller, its Events, the listeners."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

from lab.chaos.listener import interrupted, stuck
from lab.oci.faults import ApiFault
from soak.faults import Act, Fault, NotMade, Scene
from soak.judge import Effect, Window
from soak.site import CERTIFICATES, SERVICES

CHANGES = ("CreateCertificate", "UpdateListener", "GetWorkRequest")


@contextlib.contextmanager
def _set(scene: Scene, **values: Any) -> Iterator[None]:
    faults = scene.world.cloud.faults
    before = {name: getattr(faults, name) for name in values}
    for name, value in values.items():
        setattr(faults, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(faults, name, value)


def lasting(low: float, high: float, **values: Any) -> Act:
    """Fields of `Faults` have *values* for a while."""

    def act(scene: Scene, dice: Random, window: Window) -> None:
        with _set(scene, **values):
            scene.hold(dice.uniform(low, high))

    return act


def oci(status: int, code: str, text: str | None = None) -> Act:
    """OCI's API answers so for a while."""

    def act(scene: Scene, dice: Random, window: Window) -> None:
        fault = ApiFault(
            status, code, "injected by the lab", dice.choice(CHANGES), dice.randint(1, 6), text
        )
        faults, times = scene.world.cloud.faults, fault.times
        faults.api.append(fault)
        scene.until(lambda: fault not in faults.api, dice.uniform(3, 8))
        with contextlib.suppress(ValueError):  # used up
            faults.api.remove(fault)
        if fault.times == times:
            window.effect = Effect.NONE  # nobody has met it

    return act


def stale(scene: Scene, dice: Random, window: Window) -> None:
    faults, times = scene.world.cloud.faults, dice.randint(1, 3)
    faults.stale_syncs = times
    scene.until(lambda: faults.stale_syncs == 0, dice.uniform(4, 10))
    if faults.stale_syncs == times:
        window.effect = Effect.NONE  # nobody has met it
    faults.stale_syncs = 0


def hung(scene: Scene, dice: Random, window: Window) -> None:
    operation = dice.choice(("CreateCertificate", "UpdateListener"))
    faults = scene.world.cloud.faults
    faults.hang.add(operation)
    scene.hold(dice.uniform(4, 12))
    faults.hang.discard(operation)


def work_failed(scene: Scene, dice: Random, window: Window) -> None:
    faults = scene.world.cloud.faults
    operation = dice.choice(("CreateCertificate", "UpdateListener"))
    faults.fail_work[operation] = "injected by the lab"
    scene.hold(dice.uniform(3, 8))
    faults.fail_work.pop(operation, None)


def refused(scene: Scene, dice: Random, window: Window) -> None:
    """Whatever version of one certificate comes next, OCI will not have it, for good."""
    certificate = dice.choice(sorted(CERTIFICATES))
    window.kind = f"refused-certificate {certificate}"
    count = len(scene.refused)
    scene.to_refuse.add(certificate)
    for _ in range(300):
        if len(scene.refused) > count or scene.stop.is_set():
            break
        scene.hold(0.1)
    scene.to_refuse.discard(certificate)
    if len(scene.refused) == count:
        raise NotMade(f"{certificate} brought no new version")
    scene.hold(10)


def nodes(scene: Scene, dice: Random, window: Window) -> None:
    for _ in range(dice.randint(1, 8)):
        scene.world.cloud.node_changed()
        scene.hold(0.3)


def controller_restart(scene: Scene, dice: Random, window: Window) -> None:
    scene.world.cloud.stop()
    try:
        scene.hold(dice.uniform(0, 5))
    finally:
        scene.world.cloud.start()


def forged(scene: Scene, dice: Random, window: Window) -> None:
    """Somebody posts an Event as if OCI had refused the certificate, or put it there."""
    namespace, name = dice.choice(SERVICES)
    refusal = dice.random() < 0.7
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    service = scene.world.service(namespace, name)
    message = (
        "Error syncing load balancer: failed to ensure load balancer: Error returned by "
        "LoadBalancer Service. Http Status Code: 400. Error Code: InvalidParameter. Message: forged"
        " Operation Name: CreateCertificate"
    )
    scene.world.plane.admin.create(
        f"/api/v1/namespaces/{namespace}/events",
        {
            "metadata": {"name": f"{name}.{uuid.uuid4().hex[:12]}"},
            "involvedObject": {
                "kind": "Service",
                "apiVersion": "v1",
                "namespace": namespace,
                "name": name,
                "uid": service["metadata"]["uid"],
            },
            "type": "Warning" if refusal else "Normal",
            "reason": "SyncLoadBalancerFailed" if refusal else "EnsuredLoadBalancer",
            "message": message if refusal else "Ensured load balancer",
            "source": {"component": "service-controller"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        },
    )
    scene.hold(3)


def listener(how: Callable[..., contextlib.AbstractContextManager[None]], most: float) -> Act:
    """One listener is out of action."""

    def act(scene: Scene, dice: Random, window: Window) -> None:
        ref = dice.choice(SERVICES)
        window.services = frozenset({"/".join(ref)})
        balancer = scene.world.cloud.find_load_balancer(*ref)
        if balancer is not None:
            with how(balancer):
                scene.hold(dice.uniform(1, most))

    return act


NONE, DELAYS, REVERTS, STOPS = Effect.NONE, Effect.DELAYS, Effect.REVERTS, Effect.STOPS
AFTER_LISTENER = lasting(3, 8, fail_after_listener="changed reserved IP")

PLACE: tuple[Fault, ...] = tuple(
    Fault(kind, act, weight, effect)
    for kind, act, weight, effect in (
        ("events-none", lasting(5, 15, events=False), 1, NONE),
        ("events-late", lasting(5, 15, event_delay_s=3.0), 1, NONE),
        ("events-budget", lasting(5, 20, event_burst=1), 1, NONE),
        ("events-clock", lasting(5, 15, clock_offset_s=-20.0), 1, NONE),
        ("events-forged", forged, 1, NONE),
        # All but one look from outside, where this is nothing.
        ("inside-foreign", lasting(5, 20, inside="foreign"), 1, NONE),
        ("inside-old", lasting(5, 20, inside="old"), 2, NONE),
        ("node-sync", nodes, 1, NONE),
        ("stale-sync", stale, 2, REVERTS),
        ("controller-behind", lasting(5, 12, watch_delay_s=1.5), 1, DELAYS),
        ("controller-paused", lasting(4, 12, paused=True), 1, DELAYS),
        ("controller-restart", controller_restart, 1, DELAYS),
        ("work-hung", hung, 2, DELAYS),
        ("work-failed", work_failed, 1, DELAYS),
        ("fail-after-listener", AFTER_LISTENER, 1, DELAYS),
        ("full-load-balancer", lasting(4, 10, certificate_limit=0), 2, DELAYS),
        ("oci-429", oci(429, "TooManyRequests"), 1, DELAYS),
        ("oci-rate-limited", oci(429, "", "rate limited(CreateCertificate)"), 1, DELAYS),
        ("oci-409", oci(409, "Conflict"), 1, DELAYS),
        ("oci-500", oci(500, "InternalServerError"), 1, DELAYS),
        ("tls-alert", lasting(2, 10, tls_alert={443}), 1, STOPS),
        ("refused-certificate", refused, 1, NONE),
        ("listener-interrupted", listener(interrupted, 6), 1, STOPS),
        ("listener-stuck", listener(stuck, 3), 1, STOPS),
    )
)
