"""What an order carries beside its names, what it is without, and how long it is followed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton import caa, pki
from certbaton.ca.problems import ServerError
from certbaton.errors import (
    CaaForbids,
    CaUnavailable,
    ClusterUnavailable,
    PermanentError,
    RateLimited,
)
from certbaton.model import CertificateSpec, FailureKind, IssuerSpec, Revocation
from fakes.ca import DIRECTORY
from loop.world import DAY, MINUTE, SECOND, Process, World, a_spec, settle

ONE = a_spec("one", "one")
HOUR = 60 * MINUTE


def at(**issuer: object) -> CertificateSpec:
    return replace(ONE, issuer=replace(IssuerSpec("lab", DIRECTORY), **issuer))  # type: ignore[arg-type]


def renewed(world: World) -> Process:
    """A certificate that was issued, and is due again."""
    process = world.process()
    settle(world, process)
    world.now += 61 * DAY
    return process


# --- profiles ---------------------------------------------------------------------------------


def test_two_issuers_at_one_ca_have_a_profile_each() -> None:
    """What one of them would go without, the other one insists on."""
    would = replace(a_spec("aye", "aye"), issuer=IssuerSpec("would", DIRECTORY, profile="short"))
    must = replace(
        a_spec("zed", "zed"),
        issuer=IssuerSpec("must", DIRECTORY, profile="short", profile_required=True),
    )
    world = World(would, must)
    process = world.process()
    assert process.turn("aye").failed == []
    (failed,) = process.turn("zed").failed
    assert "does not list profile 'short'" in failed
    assert [order.profile for order in world.ca.all_orders()] == [None]


# --- replaces ---------------------------------------------------------------------------------


def test_a_renewal_says_what_it_replaces() -> None:
    """By the CertID of the version before, where the CA has renewal information."""
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    settle(world, renewed(world))
    first, second = world.ca.all_orders()
    assert first.replaces is None
    assert second.replaces == pki.leaf_of(world.ca.issued[0].chain).ari_id


def test_a_predecessor_that_is_refused_is_left_out_at_once() -> None:
    """In the same turn, and it is no failure."""
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    process = renewed(world)
    world.ca.fail("newOrder", PermanentError("alreadyReplaced"))
    assert process.turn("one").failed == []
    assert len(world.ca.issued) == 2 and world.ca.all_orders()[-1].replaces is None


def test_a_predecessor_on_which_the_ca_breaks_twice_is_left_out() -> None:
    """In the same turn: a CA that lost it is not one that is away, for anybody."""
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    process = renewed(world)
    world.ca.fail("newOrder", ServerError("HTTP 500"), ServerError("HTTP 500"))
    assert process.turn("one").failed == []
    assert len(world.ca.issued) == 2 and world.ca.all_orders()[-1].replaces is None
    assert world.ca.calls.count("newOrder") == 1 + 3


def test_a_limit_is_no_reason_to_go_without() -> None:
    """Orders that replace are spared limits: without, it would be worse."""
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    process = renewed(world)
    until = world.now + HOUR
    world.ca.fail("newOrder", RateLimited("too many", retry_at=until))
    assert process.turn("one").failed == ["too many"]
    world.now = until
    settle(world, process)
    assert world.ca.all_orders()[-1].replaces is not None


# --- profile, lifetime, key -------------------------------------------------------------------


def test_a_profile_that_is_preferred_may_be_missing() -> None:
    """What was asked for and what came of it stand on the version, which fits."""
    world = World(at(profile="tlsserver"))
    process = world.process()
    settle(world, process)
    (version,) = process.cluster.store.versions("one")
    assert (version.profile, version.profile_got) == ("tlsserver", None)
    world.now += 10 * DAY
    process.turn("one")
    assert len(world.ca.issued) == 1


def test_a_profile_that_is_required_is_looked_for_daily() -> None:
    """Nothing is issued without it, from the first time on."""
    world = World(at(profile="tlsserver", profile_required=True))
    process = world.process()
    process.turn("one")
    failure = process.journal("one").failures[DIRECTORY]
    assert failure.kind is FailureKind.PROFILE
    assert 0.8 * DAY <= failure.retry_at - world.now <= 1.2 * DAY
    world.now = failure.retry_at
    world.ca.profiles = {"tlsserver": timedelta(days=45)}
    settle(world, process)
    (version,) = process.cluster.store.versions("one")
    assert version.profile_got == "tlsserver"


@pytest.mark.parametrize(
    "corrected",
    [at(profile="tlsserver"), at(profile="short", profile_required=True), at()],
    ids=["preferred", "another", "none"],
)
def test_a_profile_that_is_corrected_is_not_waited_for(corrected: CertificateSpec) -> None:
    """The message says to correct it; a day later would be no answer to that."""
    world = World(at(profile="tlsserver", profile_required=True))
    world.ca.profiles = {"short": timedelta(days=6)}
    world.process().turn("one")
    process = world.process(corrected)
    process.turn("one")
    assert len(world.ca.issued) == 1
    assert process.journal("one").failures == {}


def test_a_name_that_is_corrected_is_not_waited_for() -> None:
    """Four failures cost a day; they were another order's."""
    world = World(replace(ONE, names=("oen.example",)))
    world.ca.validate = lambda challenge: "no such name"
    process = world.process()
    for _ in range(4):
        process.turn("one")
        failure = process.journal("one").failures[DIRECTORY]
        world.now = max(world.now + HOUR, failure.retry_at)
    process.turn("one")
    wait = process.journal("one").failures[DIRECTORY].retry_at - world.now
    assert wait > 12 * HOUR and world.ca.issued == []
    world.ca.validate = world.validate
    world.process().turn("one")
    assert world.ca.issued == []
    world.process(ONE).turn("one")
    assert len(world.ca.issued) == 1


@pytest.mark.parametrize("takes", [True, False])
def test_an_end_is_asked_for_where_the_ca_takes_it(takes: bool) -> None:
    """Where it does not, the order is placed without, at once."""
    world = World(replace(ONE, lifetime=timedelta(days=7)))
    world.ca.takes_not_after = takes
    process = world.process()
    assert process.turn("one").failed == []
    (order,) = world.ca.all_orders()
    assert (order.not_after is not None) is takes
    assert len(world.ca.issued) == 1


def test_an_end_is_counted_from_when_the_order_is_placed() -> None:
    """Not from when it was written into the Journal, which may have lain there for days."""
    world = World(replace(ONE, lifetime=timedelta(days=7)))
    world.ca.takes_not_after = True
    process = world.process()
    world.ca.fail("newOrder", CaUnavailable("no route"))
    process.turn("one")
    assert process.journal("one").pending is not None and not world.ca.all_orders()
    world.now += 6 * DAY
    settle(world, world.process())
    (order,) = world.ca.all_orders()
    assert order.not_after is not None
    assert order.not_after > world.now + timedelta(days=6)


def test_a_key_is_kept_where_that_is_asked_for() -> None:
    """Over renewals; without it each certificate has another one."""
    for reuse, keys in ((True, 1), (False, 2)):
        world = World(replace(ONE, reuse_key=reuse))
        settle(world, renewed(world))
        found = {pki.leaf_of(each.chain).public_key_sha256 for each in world.ca.issued}
        assert (len(world.ca.issued), len(found)) == (2, keys)


def test_a_key_that_was_compromised_is_never_used_again() -> None:
    """However it is configured."""
    world = World(replace(ONE, reuse_key=True))
    process = world.process()
    settle(world, process)
    world.now += HOUR
    (version,) = process.cluster.store.versions("one")
    process.cluster.store.annotate(version, revoked=Revocation(world.now, "keyCompromise"))
    settle(world, process)
    first, second = (pki.leaf_of(each.chain).public_key_sha256 for each in world.ca.issued)
    assert first != second


# --- intent, and ends -------------------------------------------------------------------------


def test_that_it_is_finalized_is_written_before_it_is() -> None:
    """From then on a certificate may exist."""
    world = World(ONE)
    process = world.process()
    seen: list[bool] = []

    def before(request: str) -> None:
        if request == "finalize":
            pending = process.journal("one").pending
            seen.append(pending is not None and pending.finalizing)

    world.ca.before = before
    process.turn("one")
    assert seen == [True]


def test_an_order_that_is_ready_at_once_takes_one_write_and_five_requests() -> None:
    """The URL and that it is finalized are one write; nothing is validated again."""
    world = World(ONE)
    world.ca.authorization_reuse = 90 * DAY
    process = renewed(world)
    writes: list[str] = []
    world.watch = lambda what: writes.append(what) if "merge Secret journal" in what else None
    asked = len(world.ca.calls)
    process.turn("one")
    assert world.ca.calls[asked:] == ["newOrder", "finalize", "certificate"]
    assert len(writes) == 3, "staged, placed, closed"


@pytest.mark.parametrize("names", [1, 3])
def test_requests_of_an_issuance(names: int) -> None:
    """At most 2N+6 for N names."""
    spec = replace(ONE, names=tuple(f"n{number}.example" for number in range(names)))
    world = World(spec)
    world.ca.validation_time = world.ca.issuance_time = SECOND / 5
    settle(world, world.process())
    asked = [call for call in world.ca.calls if call != "newAccount"]
    assert len(world.ca.issued) == 1 and len(asked) <= 2 * names + 6, asked


def test_an_order_that_stays_open_for_a_day_has_failed() -> None:
    """Another one is placed; its authorizations are taken back."""
    world = World(ONE)
    world.ca.validation_time = timedelta(days=30)
    process = world.process()
    began = world.now
    while process.journal("one").failures == {} if world.ca.calls else True:
        report = process.turn("one")
        assert report.next_at is not None
        world.now = max(world.now + SECOND, report.next_at)
        assert world.now < began + 2 * DAY
    failure = process.journal("one").failures[DIRECTORY]
    assert began + DAY <= failure.at <= began + DAY + 11 * MINUTE
    assert "nothing came of it since" in failure.message
    assert process.journal("one").pending is None and world.answers == {}
    assert "deactivateAuthorization" in world.ca.calls


def test_an_order_of_a_process_that_was_away_for_days_has_its_time_anew() -> None:
    """It was staged and never placed: that is no age."""
    world = World(ONE)
    world.ca.fail("newOrder", RateLimited("too many", retry_at=world.now + HOUR))
    world.process().turn("one")
    world.now += 3 * DAY
    world.ca.validation_time = 10 * MINUTE
    process = world.process()
    settle(world, process, turns=60)
    assert len(world.ca.issued) == 1
    assert world.ca.calls.count("newOrder") == 2, "the refused one, and no third"


# --- a Secret that cannot be created ----------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ClusterUnavailable("timeout"), PermanentError("exceeded quota")],
    ids=["away", "quota"],
)
def test_a_certificate_that_cannot_be_stored_is_kept_and_nothing_is_ordered(
    error: Exception,
) -> None:
    """No failure of its CA, however long it takes; nor is the CA asked again."""
    world = World(ONE)
    process = world.process()
    world.fail("create Secret one-", *[error] * 40)
    process.turn("one")
    asked = len(world.ca.calls)
    for _ in range(30):
        world.now += 6 * MINUTE
        report = process.turn("one")
        assert report.failed == [str(error)]
    assert process.journal("one").failures == {}
    world._faults.clear()
    world.now += 6 * MINUTE
    settle(world, world.process())
    assert world.named("one") is not None and len(world.ca.issued) == 1
    assert not {"newOrder", "finalize", "certificate"} & set(world.ca.calls[asked:])


# --- CAA --------------------------------------------------------------------------------------


def test_caa_records_are_looked_at_before_the_first_order_only() -> None:
    """What they say is told, as an Event, and the order is placed all the same."""
    world = World(ONE)
    world.caa = caa.Advice(("CAA of one.example names another CA",))
    settle(world, renewed(world))
    assert world.caa_asked == [ONE.names]
    assert world.events().count("CertificateCaa") == 1
    assert len(world.ca.issued) == 2


def test_another_ca_and_another_name_have_a_first_order_too() -> None:
    """The records may name neither: a fallback fails on the day that it is needed."""
    other = IssuerSpec("other", "https://other.test/directory")
    world = World(replace(ONE, fallbacks=(other,)))
    second = world.add_ca(other.directory)
    settle(world, renewed(world))
    assert len(world.caa_asked) == 1
    more = replace(world.specs[0], names=("one.example", "uno.example"))
    settle(world, world.process(more))
    assert world.caa_asked[1:] == [more.names]
    world.now += 88 * DAY
    world.ca.fail("newOrder", PermanentError("rejectedIdentifier"))
    settle(world, world.process(more))
    assert world.caa_asked[2:] == [more.names] and len(second.issued) == 1


def test_caa_records_are_looked_at_after_the_ca_said_so() -> None:
    """That the CA forbids it may be explained by then."""
    world = World(ONE)
    process = renewed(world)
    world.ca.fail("newOrder", CaaForbids("caa"))
    process.turn("one")
    assert len(world.caa_asked) == 1
    world.now = process.journal("one").failures[DIRECTORY].retry_at
    settle(world, process)
    assert len(world.caa_asked) == 2 and len(world.ca.issued) == 2
