"""Names of certificates: internationalized ones, IP addresses, and how many there may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml

from certbaton.config import parse
from certbaton.errors import ConfigurationError
from certbaton.names import both_forms, to_ascii, to_unicode

CONFIG = """
issuers: {le: {directory: https://ca.example/directory}}
solvers: {web: {type: http-01}, dns: {type: dns-01, rfc2136: {server: ns.example}}}
"""


def text(**certificate: Any) -> str:
    shop = {"name": "shop", "issuer": "le", "solver": "web"} | certificate
    return yaml.safe_dump({**yaml.safe_load(CONFIG), "certificates": [shop]})


def names(**certificate: Any) -> tuple[str, ...]:
    (spec,) = parse(text(**certificate), {}).specs()
    return spec.names


def complaint(**certificate: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text(**certificate), {})
    return str(caught.value)


FORMS = {
    "umlauts": ("mäh.example", "xn--mh-via.example"),
    "upper case": ("MÄH.Example", "xn--mh-via.example"),
    "a sharp s, which is a letter of its own": ("straße.example", "xn--strae-oqa.example"),
    "wide letters": ("\uff53\uff48\uff4f\uff50.example", "shop.example"),
    "a wildcard": ("*.mäh.example", "*.xn--mh-via.example"),
    "another script": ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    "the xn-- form": ("xn--mh-via.example", "xn--mh-via.example"),
    "a capital sigma at the end": ("a.ΌΛΟΣ", "a.xn--wxaim7a"),
    "an ideographic full stop": ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
}


@pytest.mark.parametrize(("written", "stands"), FORMS.values(), ids=FORMS)
def test_a_name_may_be_written_as_people_do(written: str, stands: str) -> None:
    """Specifications, and so orders and certificates, have its A-labels."""
    assert names(dnsNames=[written], solver="dns") == (stands,)


def test_a_name_is_shown_in_both_forms() -> None:
    """And once where it has one only; what is broken stays as it is."""
    assert both_forms("*.xn--mh-via.example") == "*.mäh.example (*.xn--mh-via.example)"
    assert both_forms("shop.example.com") == "shop.example.com"
    assert to_unicode("xn--a-ecp.example") == "xn--a-ecp.example"
    assert to_ascii("Shop.Example") == "shop.example"


def test_both_forms_of_one_name_are_the_same_name() -> None:
    """So it stands there twice."""
    said = complaint(dnsNames=["mäh.example", "xn--mh-via.example"])
    assert said == "certificates[0].dnsNames: 'mäh.example (xn--mh-via.example)' stands there twice"


def test_a_full_stop_at_the_end_is_told_in_any_script() -> None:
    """It is not taken for an empty label, which nobody sees there."""
    for written in ("a.example.", "例え.テスト。"):
        said = complaint(dnsNames=[written])
        assert said == f"certificates[0].dnsNames[0]: '{written}' ends in a dot; leave it out"


def test_ip_addresses_are_names_in_their_shortest_form() -> None:
    """With or without DNS names beside them."""
    found = names(ipAddresses=["2001:DB8:0::1", "192.0.2.7"], dnsNames=["a.example"])
    assert found == ("192.0.2.7", "2001:db8::1", "a.example")
    assert names(ipAddresses=["192.0.2.7"]) == ("192.0.2.7",)


def test_an_address_in_two_spellings_stands_there_twice() -> None:
    said = complaint(ipAddresses=["2001:db8::1", "2001:DB8:0::1"])
    assert said == "certificates[0].ipAddresses: '2001:db8::1' stands there twice"


ADDRESSES: dict[str, tuple[object, str]] = {
    "a name": ("a.example", "'a.example' is not an IP address such as 192.0.2.7 or 2001:db8::7"),
    "a network": ("192.0.2.0/24", "'192.0.2.0/24' is not an IP address such as 192.0.2.7 or "
                  "2001:db8::7"),
    "a wildcard": ("*.192.0.2.7", "'*.192.0.2.7' is a wildcard; there is none of an IP address"),
    "a zone": ("fe80::1%eth0", "'fe80::1%eth0' has a zone, which means something on one machine "
               "only"),
    "an IPv4 address in an IPv6 form": ("::ffff:192.0.2.7", "'::ffff:192.0.2.7' is an IPv4 address "
                                        "in an IPv6 form; write 192.0.2.7"),
    "a number": (1, "must be text, not 1; put it in quotes"),
}  # fmt: skip


@pytest.mark.parametrize(("address", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_a_wrong_address_gets_one_sentence(address: object, expected: str) -> None:
    """It says what is wrong with that very address."""
    assert complaint(ipAddresses=[address]) == f"certificates[0].ipAddresses[0]: {expected}"


def test_an_ip_address_is_validated_over_http() -> None:
    """There is no TXT record for it."""
    assert complaint(ipAddresses=["192.0.2.7"], solver="dns") == (
        "certificates[0].ipAddresses[0]: '192.0.2.7' is an IP address, which a CA never validates "
        "by dns-01, and solver 'dns' is dns-01"
    )


def test_a_certificate_has_a_hundred_names_at_most() -> None:
    """Of both kinds together."""
    hosts = [f"a{number}.example" for number in range(99)]
    assert len(names(dnsNames=hosts, ipAddresses=["192.0.2.1"])) == 100
    assert complaint(dnsNames=hosts, ipAddresses=["192.0.2.1", "192.0.2.2"]) == (
        "certificates[0]: dnsNames and ipAddresses are 101 names, and a certificate has at most "
        "100; make two certificates"
    )


def test_the_key_may_be_kept_and_the_lifetime_chosen() -> None:
    """By default neither."""
    (spec,) = parse(text(dnsNames=["a.example"]), {}).specs()
    assert (spec.reuse_key, spec.lifetime) == (False, None)
    (spec,) = parse(text(dnsNames=["a.example"], reuseKey=True, lifetime="30d"), {}).specs()
    assert (spec.reuse_key, spec.lifetime) == (True, timedelta(days=30))
