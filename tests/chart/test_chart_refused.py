"""What the chart refuses when it is installed, and the place that it names."""

from __future__ import annotations

from typing import Any

import pytest

from chart.conftest import CHART, HTTP01, SHOP, Helm
from lab.process import LabError

pytestmark = pytest.mark.servers

TYPOS: dict[str, tuple[dict[str, Any], str]] = {
    "no configuration at all": (
        {"config": None},
        "config: must hold keys and values, not null; leave it out for the chart's own",
    ),
    "an issuer without its directory": (
        {"config": {"issuers": {"internal": {"email": "a@b.example"}}}},
        "config.issuers.internal.directory: this key is required: the address of the CA's "
        "directory, or one of the names letsencrypt",
    ),
    "in a list of issuers": (
        {
            "config": {
                "solvers": HTTP01,
                "certificates": [
                    {key: value for key, value in SHOP.items() if key != "issuer"}
                    | {"issuers": ["letsencrypt", "zerosl"]}
                ],
            }
        },
        "config.certificates[0].issuers: there is no issuer 'zerosl'",
    ),
    "an issuer beside a list of them": (
        {"config": {"solvers": HTTP01, "certificates": [SHOP | {"issuers": ["letsencrypt"]}]}},
        "at '/config/certificates/0'",
    ),
    "an IP address with dns-01": (
        {
            "config": {
                "solvers": {"dns": {"type": "dns-01", "rfc2136": {"server": "ns.example"}}},
                "certificates": [SHOP | {"solver": "dns", "ipAddresses": ["192.0.2.7"]}],
            }
        },
        "config.certificates[0].ipAddresses: an IP address needs an http-01 solver",
    ),
    "less time than the daemon takes to leave": (
        {"terminationGracePeriodSeconds": 9},
        "at '/terminationGracePeriodSeconds'",
    ),
    "a password in a proxy's address": (
        {"proxy": {"url": "http://me:secret@proxy.example:3128"}},
        "at '/proxy/url'",
    ),
    "a CA bundle from nowhere": ({"caBundles": {"a.pem": {"key": "ca.crt"}}}, "at '/caBundles/"),
    "no replica": ({"replicaCount": 0}, "at '/replicaCount'"),
    "at the top": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "in the image": ({"image": {"tga": "x"}}, "at '/image'"),
    "in resources": ({"resources": {"limit": {}}}, "at '/resources'"),
    "in the configuration": ({"config": {"solver": {}}}, "additional properties 'solver'"),
    "in the policy": ({"config": {"policy": {"lat": 0.1}}}, "additional properties 'lat'"),
    "in a certificate": (
        {"config": {"certificates": [SHOP | {"dnsName": []}]}},
        "additional properties 'dnsName'",
    ),
    "in the name of an issuer": (
        {"config": {"solvers": HTTP01, "certificates": [SHOP | {"issuer": "letsencript"}]}},
        "config.certificates[0].issuer: there is no issuer 'letsencript'",
    ),
    "in the name of a solver": (
        {"config": {"solvers": HTTP01, "certificates": [SHOP | {"solver": "dns"}]}},
        "config.certificates[0].solver: there is no solver 'dns'",
    ),
    "in a DNS name": (
        {"config": {"certificates": [SHOP | {"dnsNames": ["shop_.example.com"]}]}},
        "at '/config/certificates/0/dnsNames/0'",
    ),
    "a wildcard with http-01": (
        {"config": {"solvers": HTTP01, "certificates": [SHOP | {"dnsNames": ["*.a.example"]}]}},
        "*.a.example is a wildcard, which needs a dns-01 solver",
    ),
    "a Service twice": (
        {
            "config": {
                "solvers": HTTP01,
                "certificates": [SHOP | {"services": [{"namespace": "a", "name": "b"}] * 2}],
            }
        },
        "Service a/b already has a certificate",
    ),
    "a port twice": (
        {"config": {"solvers": {"web": {"type": "http-01", "port": 8080}}}},
        "config.solvers.web.port: 8080 is the port of healthPort",
    ),
    "a duration without a unit": ({"config": {"probeTimeout": 5}}, "at '/config/probeTimeout'"),
    "an unknown type of solver": (
        {"config": {"solvers": {"web": {"type": "foo"}}}},
        "at '/config/solvers/web/type'",
    ),
    "two http-01 solvers": (
        {"config": {"solvers": {"a": {"type": "http-01"}, "b": {"type": "http-01", "port": 1}}}},
        "one http-01 solver serves all certificates",
    ),
    "the instance, which the chart says": (
        {"config": {"instance": {"release": "a"}}},
        "additional properties 'instance'",
    ),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
}


@pytest.mark.parametrize(("values", "expected"), TYPOS.values(), ids=TYPOS)
def test_a_typo_is_refused_with_its_place(
    helm: Helm, values: dict[str, Any], expected: str
) -> None:
    """At install, not by a pod that does not start."""
    with pytest.raises(LabError) as caught:
        helm("template", "a", CHART, values=values)
    assert expected in str(caught.value)
