"""Whatever the world looks like, some things are never planned."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from certbaton.core.collect import kept
from certbaton.core.plan import plan
from certbaton.core.renewal import fits, newest_first, usable
from certbaton.model import (
    Account,
    Action,
    AdvanceOrder,
    CertificateSpec,
    CloseOrder,
    DeleteVersion,
    Failure,
    Journal,
    ListenerState,
    MarkForDeletion,
    MarkServed,
    ObjectRef,
    OrderRecord,
    Policy,
    Proof,
    Repoint,
    Route,
    SecretVersion,
    Sight,
    Snapshot,
    StageOrder,
    SyncEvent,
    Unmark,
    Wait,
)
from core.build import (
    ACCOUNT_URL,
    API,
    DAY,
    DIRECTORY,
    HOME,
    NAMES,
    NOW,
    SHOP,
    There,
    a_hash,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
)

ELSEWHERE = "https://staging.example/directory"
KEYS = ("key 1", "key 2", "key 3")
NUMBERS = ("shop-1", "shop-2", "shop-3", "shop-4")
LEAVES = [a_hash(name) for name in NUMBERS]
# near the borders of what the rules look at, whole seconds and not
MOMENTS = st.builds(
    lambda days, seconds: NOW + timedelta(days=days, seconds=seconds),
    st.sampled_from([-120, -90, -61, -60, -45, -30, -2, -1, 0, 0, 0, 1, 30]),
    st.sampled_from([-3600, -900, -60, -1, 0, 0.5, 1, 240, 900, 3600]),
)
HOW = st.sampled_from(["wire", "events", "unproven", "a word of a later release"])
TEXTS = st.one_of(st.sampled_from(["", "49", "50", "51", "9" * 5000, "٣", "-1"]), st.text())


@st.composite
def versions(draw: st.DrawFn, name: str) -> SecretVersion:
    return a_version(
        name,
        begins=draw(MOMENTS),
        lasts=draw(st.sampled_from([90 * DAY, 6 * DAY, timedelta(minutes=5)])),
        names=draw(st.sampled_from([NAMES, NAMES[:1], ()])),
        key_type=draw(st.sampled_from(["RSA-2048", "P-256"])),
        key=draw(st.sampled_from(KEYS)),
        readable=draw(st.sampled_from([True, True, True, False])),
        flaw=draw(st.sampled_from([None, None, None, "broken"])),
        directory=draw(st.sampled_from([DIRECTORY, DIRECTORY, ELSEWHERE, ""])),
        served={
            ref: Proof(draw(MOMENTS), draw(HOW))
            for ref in draw(st.sets(st.sampled_from([SHOP, API])))
        },
        marked_at=draw(st.none() | MOMENTS),
        namespace=draw(st.sampled_from([HOME, SHOP.namespace])),
    )


SIGHTS = st.builds(
    Sight, st.just("192.0.2.1"), st.just(443), st.none() | st.sampled_from(LEAVES), st.none()
)
EVENTS = st.builds(
    SyncEvent,
    st.sampled_from(["EnsuringLoadBalancer", "EnsuredLoadBalancer", "SyncLoadBalancerFailed", ""]),
    st.text(max_size=5),
    MOMENTS,
    MOMENTS,
    st.sampled_from([0, 1, 1, 2]),
    TEXTS,
)


@st.composite
def service(draw: st.DrawFn, ref: ObjectRef) -> There:
    named = st.builds(
        ObjectRef, st.sampled_from([HOME, SHOP.namespace]), st.sampled_from([*NUMBERS, "foreign"])
    )
    return a_service(
        ref,
        names=draw(st.none() | named),
        complete=draw(st.booleans()),
        problem=draw(st.none() | st.just("a problem")),
        changed_at=draw(st.none() | MOMENTS),
        reference_version=draw(TEXTS),
        route=draw(st.sampled_from(Route)),
        sights=draw(st.lists(SIGHTS, max_size=2)),
        events=draw(st.lists(EVENTS, max_size=4)),
        deleting=draw(st.booleans()),
        ours=draw(st.booleans()),
    )


PENDING = st.builds(
    a_pending,
    key=st.sampled_from(KEYS),
    directory=st.sampled_from([DIRECTORY, ELSEWHERE]),
    account_url=st.sampled_from([ACCOUNT_URL, "another"]),
    names=st.sampled_from([NAMES, NAMES[:1]]),
    url=st.none() | st.just("https://ca.example/order/1"),
)
JOURNALS = st.none() | st.builds(
    Journal,
    pending=st.none() | PENDING,
    failures=st.dictionaries(
        st.just(DIRECTORY),
        st.builds(Failure, st.text(max_size=3), MOMENTS, st.integers(1), MOMENTS),
        max_size=1,
    ),
    last_version=st.none() | st.sampled_from(NUMBERS),
)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    there = [draw(service(ref)) for ref in draw(st.sets(st.sampled_from([SHOP, API])))]
    names = draw(st.sets(st.sampled_from(NUMBERS)))
    further = st.builds(ObjectRef, st.just(HOME), st.sampled_from(NUMBERS))
    return a_snapshot(
        *(draw(versions(name)) for name in sorted(names)),
        services=there,
        journal=draw(JOURNALS),
        account=draw(st.sampled_from([None, Account(DIRECTORY, None), ACCOUNT_URL])),
        references=draw(st.lists(further, max_size=1)),
        issued=[OrderRecord(at, DIRECTORY, NAMES) for at in draw(st.lists(MOMENTS, max_size=5))],
        complete=draw(st.sampled_from([True, True, False])),
    )


SPECS = st.sampled_from([None, a_spec(SHOP, API), a_spec(SHOP), a_spec(API, names=NAMES[:1])])
POLICIES = st.sampled_from([Policy(), Policy(keep_previous=0)])


def count(actions: tuple[Action, ...], *kinds: type[Action]) -> int:
    return sum(isinstance(action, kinds) for action in actions)


@settings(max_examples=400, deadline=None)
@given(SPECS, worlds(), POLICIES)
def test_whatever_the_world_looks_like(
    spec: CertificateSpec | None, world: Snapshot, policy: Policy
) -> None:
    """A plan is made, always the same, and nothing in it does harm."""
    found = plan("shop", spec, world, policy, NOW)
    assert found == plan("shop", spec, world, policy, NOW)
    actions = found.actions
    pending = world.journal.pending if world.journal else None

    swept = [a.version for a in actions if isinstance(a, DeleteVersion | MarkForDeletion)]
    for version in swept:
        assert world.complete
        assert version.ref not in world.references
        assert version.ref not in kept(spec, world, policy, NOW)
        assert (
            version.leaf is None
            or not pending
            or (version.leaf.public_key_sha256 != pending.public_key_sha256)
        )
    if spec is not None:
        good = [v for v in world.versions if fits(v, spec) and usable(v, NOW)]
        assert newest_first(good)[0] not in swept if good else not swept
    for version in (a.version for a in actions if isinstance(a, DeleteVersion)):
        assert version.marked_at is not None and version.marked_at < NOW

    repoints = [action for action in actions if isinstance(action, Repoint)]
    assert len(repoints) <= 1, "one listener at a time"
    for repoint in repoints:
        assert repoint.version is not None and repoint.version in world.versions
        assert repoint.version.marked_at is None and usable(repoint.version, NOW)
        assert repoint.service.ref in world.services
        binding = world.bindings[repoint.service.ref]
        assert binding.reference != repoint.version.ref or not binding.complete
    targets = {action.reference for action in repoints}
    assert targets.isdisjoint(version.ref for version in swept)

    for action in actions:
        if isinstance(action, MarkServed):
            assert world.bindings[action.service].reference == action.version.ref
        if isinstance(action, Unmark):
            assert action.version.marked_at is not None

    assert count(actions, StageOrder, AdvanceOrder, CloseOrder) <= 1
    if pending is not None or spec is None:
        assert not count(actions, StageOrder)
    if spec is not None and any(
        fits(v, spec) and v.leaf and v.leaf.not_before > NOW for v in world.versions
    ):
        assert not count(actions, StageOrder), "the CA's clock is ahead of ours"
    failure = world.journal.failure if world.journal else None
    if failure and failure.retry_at > NOW:
        assert not count(actions, StageOrder, AdvanceOrder)


@settings(max_examples=150, deadline=None)
@given(SPECS, worlds(), POLICIES)
def test_the_same_world_in_another_order_has_the_same_plan(
    spec: CertificateSpec | None, world: Snapshot, policy: Policy
) -> None:
    """A cluster tells its objects in no particular order."""

    def turned(snapshot: Snapshot) -> Snapshot:
        return Snapshot(
            accounts=dict([*snapshot.accounts.items()][::-1]),
            journal=snapshot.journal,
            versions=snapshot.versions[::-1],
            services=dict([*snapshot.services.items()][::-1]),
            bindings=dict([*snapshot.bindings.items()][::-1]),
            listeners={
                ref: ListenerState(found.route, found.sights, found.events[::-1])
                for ref, found in [*snapshot.listeners.items()][::-1]
            },
            references=snapshot.references,
            issued=snapshot.issued[::-1],
            failed_validations=snapshot.failed_validations[::-1],
            complete=snapshot.complete,
            problems=snapshot.problems,
        )

    def shape(snapshot: Snapshot) -> tuple[set[Action], set[Wait]]:
        found = plan("shop", spec, snapshot, policy, NOW)
        return {_plain(action) for action in found.actions}, set(found.waits)

    one, other = shape(world), shape(turned(world))
    assert one[0] == other[0]
    assert {wait.until for wait in one[1]} == {wait.until for wait in other[1]}


def _plain(action: Action) -> Action:
    """Without what cannot be hashed."""
    version = getattr(action, "version", None)
    why = f"{type(action).__name__} {getattr(version, 'ref', version)}"
    return Action(action.certificate, why)
