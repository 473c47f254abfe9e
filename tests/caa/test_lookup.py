"""Which records are found: a real name server, and what it does wrong."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from certbaton.caa import Property, advise, look_up
from lab.dns import Knot
from solvers.name_server import IN, NameServer


class KnotWithBrokenZone(Knot):
    """Knot as the root, so that it answers for every name; it cannot load the zone broken.test."""

    def _config(self, secret: str, zone_file: Path) -> str:
        return (
            f'{super()._config(secret, zone_file)}  - domain: broken.test.\n    file: "missing"\n'
        )


@pytest.fixture(scope="module")
def knot() -> Iterator[Knot]:
    with KnotWithBrokenZone(zone=".") as running:
        for name, text in {
            "a.test": '0 issue "letsencrypt.org"',
            "deep.a.test": '0 issue "pki.goog"',
            "cdn.test": '0 issue "cdn-ca.test"',
            "wild.test": '0 issuewild "letsencrypt.org"',
            "big.test": f'0 issue "letsencrypt.org; x={"y" * 200}"',
        }.items():
            running.add(name, "CAA", text)
        running.add("wild.test", "CAA", '0 issue ";"')
        running.add("star.test", "CAA", '0 issue "letsencrypt.org"')
        running.add("*.star.test", "CAA", '0 issue "pki.goog"')
        running.add("to-cdn.a.test", "CNAME", "www.cdn.test.")
        running.add("www.cdn.test", "A", "127.0.0.1")
        running.add("to-caa.a.test", "CNAME", "cdn.test.")
        running.add("gone.a.test", "CNAME", "nothing.deep.a.test.")
        for number in range(30):
            running.add("big.test", "CAA", f'0 issue "ca{number}.test; x={"y" * 200}"')
        yield running


def values(knot: Knot, name: str) -> tuple[str, str, list[str]]:
    """Where the records of *name* are found, and their values."""
    (found,) = look_up([name], [knot.address])
    assert found.trouble is None
    return found.owner, found.target, [each.value.decode() for each in found.records]


@pytest.mark.servers
class TestKnot:
    """RFC 8659 section 3, asked of Knot."""

    @pytest.mark.parametrize(
        ("name", "owner", "target", "records"),
        [
            ("a.test", "a.test", "", ["letsencrypt.org"]),
            ("x.y.z.a.test", "a.test", "", ["letsencrypt.org"]),
            ("deep.a.test", "deep.a.test", "", ["pki.goog"]),
            ("x.deep.a.test", "deep.a.test", "", ["pki.goog"]),
            ("*.a.test", "a.test", "", ["letsencrypt.org"]),
            ("*.deep.a.test", "deep.a.test", "", ["pki.goog"]),
            ("free.test", "", "", []),
            # A wildcard name is asked for without its star, whatever a wildcard of DNS says.
            ("*.star.test", "star.test", "", ["letsencrypt.org"]),
            ("x.star.test", "x.star.test", "", ["pki.goog"]),
            # Of an alias's target, what stands there counts, and not what stands above it.
            ("to-caa.a.test", "to-caa.a.test", "cdn.test", ["cdn-ca.test"]),
            ("to-cdn.a.test", "a.test", "", ["letsencrypt.org"]),
            ("gone.a.test", "a.test", "", ["letsencrypt.org"]),
        ],
    )
    def test_the_nearest_records_count(
        self, knot: Knot, name: str, owner: str, target: str, records: list[str]
    ) -> None:
        """Upwards from the name itself, past names that do not exist, and through aliases."""
        assert values(knot, name) == (owner, target, records)

    def test_all_of_a_record_is_read(self, knot: Knot) -> None:
        """Flags, tag and value; in the same order each time."""
        (found,) = look_up(["*.wild.test"], [knot.address])
        assert found.records == (
            Property(0, "issue", b";"),
            Property(0, "issuewild", b"letsencrypt.org"),
        )

    def test_an_answer_too_long_for_udp_is_read(self, knot: Knot) -> None:
        """By TCP."""
        assert len(values(knot, "big.test")[2]) == 31

    def test_it_is_advice(self, knot: Knot) -> None:
        """From the names of a certificate to what is wrong with them."""
        names = [
            "x.a.test",
            "x.deep.a.test",
            "wild.test",
            "*.wild.test",
            "192.0.2.7",
            "2001:db8::7",
        ]
        advice = advise(names, ["letsencrypt.org"], None, "dns-01", [knot.address])
        assert advice.sentences == (
            "x.deep.a.test: CAA at deep.a.test does not let this CA issue: it has "
            '0 issue "pki.goog"; add the record 0 issue "letsencrypt.org" there',
            'wild.test: CAA at wild.test lets no CA issue: it has 0 issue ";"; add the record '
            '0 issue "letsencrypt.org" there',
        )
        assert advice.complete
        assert not advice.pinned

    def test_a_pinned_account_is_seen(self, knot: Knot) -> None:
        """That is what a rehearsal needs to know."""
        knot.add("pin.test", "CAA", '0 issue "letsencrypt.org; accounturi=https://ca.test/acct/1"')
        ours = advise(
            ["pin.test"], ["letsencrypt.org"], "https://ca.test/acct/1", "http-01", [knot.address]
        )
        assert (ours.sentences, ours.pinned) == ((), True)

    def test_servfail_is_told(self, knot: Knot) -> None:
        """A name beside it is looked up all the same."""
        broken, good = look_up(["x.broken.test", "a.test"], [knot.address])
        assert broken.trouble == (
            f"resolver 127.0.0.1 port {knot.port} answers SERVFAIL (INVALID DATA)"
        )
        assert good.trouble is None
        assert good.records

    def test_records_below_a_failure_count(self, knot: Knot) -> None:
        """What is above the nearest records is never asked for."""
        (found,) = look_up(["x.deep.a.test"], [knot.address])
        assert found.trouble is None

    def test_the_next_resolver_is_asked(self, knot: Knot) -> None:
        """Where the first one fails."""
        with NameServer("a.test").running() as ill:
            ill.rcode = dns.rcode.SERVFAIL
            (found,) = look_up(["a.test"], [f"127.0.0.1:{ill.port}", knot.address])
        assert found.trouble is None
        assert found.records == (Property(0, "issue", b"letsencrypt.org"),)


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_silence_is_told_in_time(silent: str) -> None:
    """A deadline bounds all names together, however many there are."""
    names = [f"a.b{number}.test" for number in range(100)]
    begun = time.monotonic()
    advice = advise(names, ["letsencrypt.org"], None, "http-01", [silent], deadline=1.0)
    # dnspython pauses up to two seconds between two rounds; each name for itself would be 100 s
    assert time.monotonic() - begun < 20.0
    assert not advice.complete
    assert "did not answer in time" in advice.sentences[0]
    assert len(advice.sentences) <= 3


def test_a_port_where_nobody_is(silent: str) -> None:
    """Told as what it is, or as silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    advice = advise(["a.test"], ["x.test"], None, None, [f"127.0.0.1:{port}"], deadline=0.5)
    assert not advice.complete
    assert "CAA could not be looked up" in advice.sentences[0]


def test_why_an_answer_fails_is_told() -> None:
    """A resolver that gives extended errors (RFC 8914) says that DNSSEC is broken."""

    class Validating(NameServer):
        def _answer(self, wire: bytes, by: str) -> bytes:
            response = dns.message.make_response(dns.message.from_wire(wire))
            response.set_rcode(dns.rcode.SERVFAIL)
            option = dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "\x1b evil\n")
            response.use_edns(0, options=[option])
            return response.to_wire()

    with Validating("a.test").running() as server:
        (found,) = look_up(["a.test"], [f"127.0.0.1:{server.port}"])
    assert found.trouble == (
        f"resolver 127.0.0.1 port {server.port} answers SERVFAIL (DNSSEC BOGUS)"
    )


def test_a_name_is_asked_for_once() -> None:
    """A hundred names share those above them, and what went wrong there."""
    names = [f"n{number}.a.test" for number in range(20)]
    with NameServer("test").running() as server:
        resolvers = [f"127.0.0.1:{server.port}"]
        assert all(found.trouble is None for found in look_up(names, resolvers))
        assert len(server.by) == len(names) + len(["a.test", "test"])
        server.by.clear()
        server.rcode = dns.rcode.SERVFAIL
        assert all(found.trouble for found in look_up(["a.test", "*.a.test"], resolvers))
        assert len(server.by) == 1


def test_a_resolver_that_is_dead_is_not_waited_for_again() -> None:
    """Only by those questions that are under way when it is found out."""
    names = [f"n{number}.a.test" for number in range(40)]
    with (
        NameServer("test").running() as good,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead,
    ):
        dead.bind(("127.0.0.1", 0))
        resolvers = [f"127.0.0.1:{port}" for port in (dead.getsockname()[1], good.port)]
        found = look_up(names, resolvers, deadline=60.0)
        assert [each.trouble for each in found] == [None] * len(names)
        dead.setblocking(False)
        questions = 0
        with contextlib.suppress(BlockingIOError):
            while dead.recv(1500):
                questions += 1
        assert 0 < questions <= 8


def test_the_order_of_an_answer_makes_no_difference() -> None:
    """Servers turn their records round, and the same advice is to be told each time."""
    values = ["a.test", "b.test", "c.test"]
    answers = set()
    for order in (values, values[::-1]):
        with NameServer("test").running() as server:
            for value in order:
                server.add("x.test", dns.rdatatype.CAA, f'0 issue "{value}"')
            (found,) = look_up(["x.test"], [f"127.0.0.1:{server.port}"])
            answers.add(found.records)
    assert len(answers) == 1


def test_trouble_above_a_name_says_where() -> None:
    """Trouble with the name itself does not, so that it is the same for all of them."""
    with NameServer("a.test").running() as server:
        above, itself = look_up(["a.test", "b.test"], [f"127.0.0.1:{server.port}"])
    who = f"resolver 127.0.0.1 port {server.port}"
    assert above.trouble == f"{who} answers REFUSED about test"
    assert itself.trouble == f"{who} answers REFUSED"


def test_a_refusal_is_told() -> None:
    """A server that is no resolver for the name."""
    with NameServer("other.test").running() as server:
        (found,) = look_up(["a.example"], [f"127.0.0.1:{server.port}"])
    assert found.trouble is not None
    assert "answers REFUSED" in found.trouble


def test_garbage_is_told() -> None:
    """An answer that is none, whatever it is."""

    class Garbage(NameServer):
        def _answer(self, wire: bytes, by: str) -> bytes:
            query = dns.message.from_wire(wire)
            response = dns.message.make_response(query)
            name = query.question[0].name
            # dnspython reads no such tag, and writes it only as of an unknown type
            bad = dns.rdata.GenericRdata(IN, dns.rdatatype.CAA, b"\x00\x03a-bx")
            response.answer.append(dns.rrset.from_rdata(name, 60, bad))
            return response.to_wire()

    with Garbage("a.test").running() as server:
        (found,) = look_up(["a.test"], [f"127.0.0.1:{server.port}"])
    assert found.trouble is not None
    assert "has a tag that is not letters and digits" in found.trouble


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".test", "\udcff.test", "*."])
def test_what_is_no_name_raises_nothing(name: str, silent: str) -> None:
    """Somebody else says what is wrong with it."""
    assert len(look_up([name], [silent], deadline=0.2)) == 1


@pytest.mark.parametrize("resolver", ["", "nowhere", "127.0.0.1:x", "[::1", "127.0.0.1:99999"])
def test_what_is_no_resolver_raises_nothing(resolver: str) -> None:
    """It is told."""
    (found,) = look_up(["a.test"], [resolver], deadline=0.2)
    assert found.trouble


def test_a_system_without_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as well."""

    def none(*_: object, **__: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.Resolver, "__init__", none)
    (found,) = look_up(["a.test"])
    assert found.trouble == "the system's resolvers cannot be used"


def test_addresses_have_no_caa() -> None:
    """So nobody is asked."""
    assert look_up(["192.0.2.7", "2001:db8::7"], ["192.0.2.1"]) == ()
