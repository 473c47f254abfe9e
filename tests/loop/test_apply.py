"""The hands: each write holds only if the world is still as it was when it was planned."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.cluster import Kind
from certbaton.cluster.services import BACKENDSET_SECRET, TLS_SECRET
from certbaton.errors import Conflict, RetryableError
from certbaton.model import (
    Action,
    DeleteVersion,
    GiveUp,
    MarkForDeletion,
    MarkServed,
    ObjectRef,
    Repoint,
    SecretVersion,
    ServiceSpec,
    Unmark,
)
from loop.world import DAY, INSTANCE, MINUTE, SECOND, Process, World, a_spec

ONE = a_spec("one", "one")
SERVICE = ObjectRef("shop", "one")
FORGOTTEN = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> World:
    """A Service that serves the newest of two versions."""
    world = World(ONE)
    world.process().turn("one")
    world.now += 61 * DAY
    world.process().turn("one")
    assert len(world.versions()) == 2
    world.now += FORGOTTEN
    return world


def versions(process: Process) -> tuple[SecretVersion, SecretVersion]:
    """The old one and the new one."""
    process.cluster.refresh()
    old, new = process.cluster.store.versions("one")
    return old, new


def apply(process: Process, action: Action) -> None:
    process.reconciler._applier.apply(action)


def repoint(version: SecretVersion, named: SecretVersion) -> Repoint:
    """As planned while the Service names *named*."""
    return Repoint("one", "", ServiceSpec(SERVICE), version, version.ref, named.ref)


def annotate(world: World, name: str, annotations: dict[str, str]) -> None:
    """As a user does."""
    ref = ObjectRef("shop", name)
    world.api.merge(Kind.SERVICE, ref, {"metadata": {"annotations": annotations}})


# --- sweeping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [TLS_SECRET, BACKENDSET_SECRET])
def test_a_sweep_looks_at_all_services_live(world: World, annotation: str) -> None:
    """One named it that our watch has not told of: it stays, and its mark comes off."""
    process = world.process()
    old, _ = versions(process)
    apply(process, MarkForDeletion("one", "", old))
    world.add_service("other")
    old, _ = versions(process)
    annotate(world, "other", {annotation: str(old.ref)})
    with pytest.raises(Conflict, match="named by a Service again"):
        apply(process, DeleteVersion("one", "", old))
    assert str(old.ref) in world.versions()
    assert process.turn("one").done == ["Unmark"]


def test_a_sweep_deletes_only_what_is_as_it_was(world: World) -> None:
    """Un-marked by somebody else meanwhile: the precondition fails."""
    process, other = world.process(), world.process()
    apply(process, MarkForDeletion("one", "", versions(process)[0]))
    old, _ = versions(process)
    apply(other, Unmark("one", "", versions(other)[0]))
    with pytest.raises(Conflict):
        apply(process, DeleteVersion("one", "", old))
    assert str(old.ref) in world.versions()


def test_what_is_named_by_nobody_is_deleted(world: World) -> None:
    """And only that."""
    process = world.process()
    apply(process, MarkForDeletion("one", "", versions(process)[0]))
    old, new = versions(process)
    apply(process, DeleteVersion("one", "", old))
    assert world.versions() == [str(new.ref)]


# --- repointing ---------------------------------------------------------------------------------


def test_a_repoint_overwrites_only_what_it_was_planned_for(world: World) -> None:
    """Somebody changed the name in between: it is noted, or told as drift, first."""
    process = world.process()
    old, new = versions(process)
    annotate(world, "one", {TLS_SECRET: "legacy-tls"})
    process.cluster.refresh()
    with pytest.raises(Conflict, match="changed meanwhile"):
        apply(process, repoint(old, new))
    assert world.named("one") == "legacy-tls"


def test_a_repoint_never_goes_to_what_was_marked_meanwhile(world: World) -> None:
    """A sweep begun elsewhere would take it away."""
    process, other = world.process(), world.process()
    old, new = versions(process)
    apply(other, MarkForDeletion("one", "", versions(other)[0]))
    with pytest.raises(Conflict, match="gone or marked"):
        apply(process, repoint(old, new))
    assert world.named("one") == str(new.ref)


def test_a_repoint_never_goes_to_what_was_deleted_meanwhile(world: World) -> None:
    """Nor to what has its name by now."""
    process = world.process()
    old, new = versions(process)
    secret = world.api.read(Kind.SECRET, old.ref)
    world.api.delete(
        Kind.SECRET, old.ref, secret["metadata"]["uid"], secret["metadata"]["resourceVersion"]
    )
    with pytest.raises(Conflict, match="gone or marked"):
        apply(process, repoint(old, new))
    labels = {key: secret["metadata"][key] for key in ("name", "namespace", "labels")}
    world.api.create(Kind.SECRET, INSTANCE.namespace, {**secret, "metadata": labels})
    with pytest.raises(Conflict, match="gone or marked"):
        apply(process, repoint(old, new))
    assert world.named("one") == str(new.ref)


def test_a_version_that_we_have_just_written_is_not_read_again(world: World) -> None:
    """The answer to our own write is as good; for a few seconds."""
    process = world.process()
    api = world.api
    old, new = versions(process)
    lists: list[str] = []
    world.watch = lambda what: lists.append(what) if what.startswith("list Secret") else None
    apply(process, repoint(old, new))
    assert len(lists) == 1
    apply(process, MarkServed("one", "", SERVICE, old, "wire"))
    apply(process, repoint(old, old))
    assert len(lists) == 1
    world.now += 11 * SECOND
    apply(process, repoint(old, old))
    assert len(lists) == 2
    assert api.read(Kind.SERVICE, SERVICE)


def test_a_service_that_was_made_again_is_not_written_by_the_plan_for_the_old_one(
    world: World,
) -> None:
    """Its uid is another one."""
    process = world.process()
    old, new = versions(process)
    metadata = world.api.read(Kind.SERVICE, SERVICE)["metadata"]
    world.api.delete(Kind.SERVICE, SERVICE, metadata["uid"], metadata["resourceVersion"])
    with pytest.raises(Conflict):
        apply(process, repoint(old, new))
    assert SERVICE not in world.api.all(Kind.SERVICE), "an apply would have made one"
    old, new = versions(process)
    world.add_service("one")
    with pytest.raises(Conflict, match="is gone"):
        apply(process, repoint(old, new))
    assert world.named("one") is None
    assert process.turn("one").failed == []
    assert world.named("one") == world.versions()[1]


def test_a_service_that_changed_is_not_written_by_the_plan_of_before(world: World) -> None:
    """Its resourceVersion is another one; the next look knows it."""
    process = world.process()
    old, new = versions(process)
    annotate(world, "one", {"example.com/x": "y"})
    with pytest.raises(Conflict):
        apply(process, repoint(old, new))
    assert world.named("one") == str(new.ref)
    apply(process, repoint(old, new))
    assert world.named("one") == str(old.ref)


# --- noting -------------------------------------------------------------------------------------


def test_what_is_noted_is_told_once(world: World) -> None:
    """An Event on the Service; noted again as it was within minutes it is no news."""
    process = world.process()
    _, new = versions(process)
    before = world.events().count("CertificateServed")
    world.now += MINUTE
    applied = process.reconciler._applier.apply(MarkServed("one", "", SERVICE, new, "wire"))
    assert applied.announcements == ()
    assert world.events().count("CertificateServed") == before
    _, new = versions(process)
    applied = process.reconciler._applier.apply(MarkServed("one", "", SERVICE, new, "unproven"))
    (told,) = applied.announcements
    assert (told.reason, told.warning) == ("CertificateUnproven", True)


@pytest.mark.parametrize("apart", [-HOUR, HOUR], ids=["our clock is ahead", "it is behind"])
def test_a_proof_is_never_dated_before_the_change_that_it_proves(
    world: World, apart: timedelta
) -> None:
    """Or it would not count for that change, and be looked for again and again."""
    process = world.process()
    _, new = versions(process)
    changed = world.now + apart
    apply(process, MarkServed("one", "", SERVICE, new, "wire", changed))
    _, new = versions(process)
    assert new.served[str(SERVICE)].at == max(world.now, changed)


# --- freeing a Service of a name that is nowhere ------------------------------------------------

NOWHERE = ObjectRef("certbaton", "one-20200101-0123456789")
FREE = GiveUp("one", "", SERVICE, NOWHERE)


def test_a_service_is_freed_only_of_what_is_not_there_by_now(world: World) -> None:
    """Looked at live: somebody may have made it since."""
    process = world.process()
    annotate(world, "one", {TLS_SECRET: str(NOWHERE)})
    process.cluster.refresh()
    body = {"metadata": {"name": NOWHERE.name, "namespace": NOWHERE.namespace}}
    world.api.client("kubectl").create(Kind.SECRET, NOWHERE.namespace, body)
    with pytest.raises(Conflict, match="is there by now"):
        apply(process, FREE)
    assert world.api.read(Kind.SERVICE, SERVICE)["metadata"]["annotations"][TLS_SECRET]


def test_a_service_is_freed_once_in_ten_minutes(world: World) -> None:
    """Whoever puts the name back has another source for it; no two of us fight."""
    process = world.process()

    def named() -> bool:
        process.cluster.refresh()
        return TLS_SECRET in world.api.read(Kind.SERVICE, SERVICE)["metadata"]["annotations"]

    for minutes, freed in ((0, True), (1, False), (9, False), (10, True)):
        world.now += minutes * MINUTE
        annotate(world, "one", {TLS_SECRET: str(NOWHERE)})
        assert named()
        if freed:
            apply(process, FREE)
        else:
            with pytest.raises(RetryableError, match="somebody put the name"):
                apply(process, FREE)
            world.now -= minutes * MINUTE
        assert named() is not freed
