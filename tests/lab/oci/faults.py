"""What the simulated controller, its load balancers and its Events can be told to do wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

InsideMode = Literal["plain", "foreign", "old"]


@dataclass
class ApiFault:
    """
    An answer of OCI's load balancer API in place of the right one.

    *operation* is the API's name ("CreateCertificate", "ListLoadBalancers", "GetWorkRequest");
    None means any. *times* None means for ever. *text*, if given, is the whole error, as for
    errors of the client itself ("rate limited(CreateCertificate)").
    """

    status: int = 500
    code: str = "InternalServerError"
    message: str = "Internal error"
    operation: str | None = None
    times: int | None = 1
    text: str | None = None


@dataclass
class Faults:
    """
    Every field may be changed at run time, from any thread; the defaults misbehave in nothing.

    The inside route (kube-proxy's short circuit):
      inside             what a pod meets at the load balancer's address: the pods' plain HTTP,
                         a leaf of somebody else, or an old leaf that the pods mount
      inside_pem         chain and key that "old" presents; by default the certificate that the
                         load balancer held before the listener's
      publish_inside     status.loadBalancer names the inside route's address, not the load
                         balancer's, unless ingress-ip-mode is proxy. So a daemon that reads its
                         addresses there meets what a pod would meet

    Events:
      events             False: none at all are posted
      event_burst, event_refill_s  the recorder's budget per Service and type
      event_delay_s      they arrive late by this much (with the time at which they were made)
      clock_offset_s     the controller's clock is ahead (or, negative, behind)

    Syncs:
      stale_syncs        so many syncs work on the Service as it was before the last change seen
      watch_delay_s      the cache is behind by this much
      fail_after_listener  the sync fails with this text after everything was carried out
      paused             silence: no worker takes anything up, no node sync is made (what is
                         under way goes on)

    OCI:
      api                answers of the API in place of the right ones
      refuse             names of certificates ("*": all) that CreateCertificate refuses with
                         InvalidParameter
      certificate_limit  how many a load balancer holds before LimitExceeded
      hang               operations (UpdateListener, ...) whose work requests never end;
                         taking the name out lets them go on
      fail_work          operation → message: its work request ends as FAILED
      tls_alert          Service ports whose listeners answer each ClientHello with an alert
      refuse_udp         a Service with a UDP port fails ("OCI load balancers do not support
                         UDP"), as in Oracle's source
    """

    inside: InsideMode = "plain"
    inside_pem: tuple[bytes, bytes] | None = None
    publish_inside: bool = False

    events: bool = True
    event_burst: int = 25
    event_refill_s: float = 300.0
    event_delay_s: float = 0.0
    clock_offset_s: float = 0.0

    stale_syncs: int = 0
    watch_delay_s: float = 0.0
    fail_after_listener: str | None = None
    paused: bool = False

    api: list[ApiFault] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    certificate_limit: int = 100
    hang: set[str] = field(default_factory=set)
    fail_work: dict[str, str] = field(default_factory=dict)
    tls_alert: set[int] = field(default_factory=set)
    refuse_udp: bool = True

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def take_api(self, operation: str) -> ApiFault | None:
        """The fault that this call of *operation* meets, counted down."""
        with self._lock:
            for fault in list(self.api):
                if fault.operation not in (None, operation):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.api.remove(fault)
                return fault
        return None

    def take_stale_sync(self) -> bool:
        """Whether the sync that begins now works on an old copy, counted down."""
        with self._lock:
            if self.stale_syncs <= 0:
                return False
            self.stale_syncs -= 1
            return True
