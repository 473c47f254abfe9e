"""Services as the target gets them."""

from __future__ import annotations

from collections.abc import Mapping

from certbaton.model import ObjectRef, OwnedFields, ServicePort, ServiceSpec, ServiceState
from certbaton.targets.oci import OciTarget

SHOP = ObjectRef("shop", "shop")
SECRET = ObjectRef("certbaton", "shop-20270301-0123456789")
OCI = OciTarget()

HTTP = ServicePort("http", 80, "TCP", 8080)
HTTPS = ServicePort("https", 443, "TCP", 8080)
PLAIN = ServiceSpec(SHOP)
NO_PORTS = ServiceSpec(SHOP, set_ssl_ports=False)
NO_HTTPS = ServiceSpec(SHOP, add_https_port=False)
NEITHER = ServiceSpec(SHOP, set_ssl_ports=False, add_https_port=False)
OURS = OwnedFields(tls_secret=True, ssl_ports=True, https_port=True)


def a_service(
    *ports: ServicePort,
    annotations: Mapping[str, str] | None = None,
    owned: OwnedFields = OwnedFields(),  # noqa: B008 - frozen
    type: str = "LoadBalancer",
    load_balancer_class: str | None = None,
    reference: ObjectRef | None = None,
) -> ServiceState:
    """A Service as people have it today; without *ports* with one called http."""
    return ServiceState(
        ref=SHOP,
        uid="the uid",
        resource_version="42",
        type=type,
        annotations=annotations or {},
        ports=ports or (HTTP,),
        addresses=(),
        owned=owned,
        reference=reference,
        load_balancer_class=load_balancer_class,
    )
