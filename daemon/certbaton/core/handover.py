"""
The rollout half of `certbaton.core.plan`: one listener at a time, never worse than before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from certbaton.core import reject, rollover
from certbaton.core.choose import Choice, choose, is_useless, will_do
from certbaton.core.drift import drifted
from certbaton.core.give_up import frees, give_up
from certbaton.core.renewal import (
    clock_trouble,
    late_time,
    rejected,
    usable,
    withdrawn,
)
from certbaton.model import (
    Action,
    CertificateSpec,
    MarkServed,
    NoteService,
    ObjectRef,
    Policy,
    PutBack,
    Reject,
    Repoint,
    Route,
    SecretVersion,
    ServiceSpec,
    Snapshot,
    Unmark,
    Wait,
    WaitKind,
)

# namespace/name; what is longer names no Secret, and would only fill the Journal and the log
LONGEST_NAME = 253 + 1 + 253
# An API server keeps Events for an hour: whether an alert came with the version is told by them.
UNPROVEN_LOOK = timedelta(minutes=15)


@dataclass(slots=True)
class Draft:
    """A plan while it is made."""

    certificate: str
    actions: list[Action] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    due: datetime | None = None


def roll_out(
    draft: Draft,
    spec: CertificateSpec,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    refused: frozenset[ObjectRef],
) -> None:
    """Plan what each Service needs; what has begun ends before the next begins."""
    choices: dict[ServiceSpec, Choice] = {}
    for service in spec.services:
        state = snapshot.services.get(service.ref)
        if state is None or service.ref not in snapshot.bindings or state.deleting:
            what = f"Service {service.ref} is not there"
            draft.waits.append(Wait(what, now + policy.backstop, WaitKind.IN_FLIGHT))
            continue
        choices[service] = choose(spec, service, snapshot, now)
    verdicts = {
        service.ref: found
        for service, choice in choices.items()
        if (found := _verdict(spec, service, choice, snapshot, policy, now)) is not None
    }
    moving = next((str(ref) for ref, found in verdicts.items() if isinstance(found, Wait)), None)
    for service, choice in choices.items():
        put_back = _tell(draft, service, choice, snapshot)
        if (unproven := _still_unproven(service, choice, snapshot, policy, now)) is not None:
            draft.notes.append(unproven)
            what = f"Service {service.ref} is looked at again"
            until = now + min(policy.backstop, UNPROVEN_LOOK)
            draft.waits.append(Wait(what, until, WaitKind.LATER))
        if choice.problem is not None:
            until = now + policy.backstop
            draft.waits.append(Wait(choice.problem, until, WaitKind.BACK_OFF))
        binding = snapshot.bindings[service.ref]
        verdict = verdicts.get(service.ref)
        if isinstance(verdict, Wait):
            draft.waits.append(verdict)
        elif isinstance(verdict, Reject):
            if not spec.paused and clock_trouble(snapshot, policy, now) is None:
                draft.actions.append(verdict)
        elif verdict is not None and (version := _on_its_way(service, choice, snapshot, now)):
            draft.actions.append(_served(spec, service, version, verdict, snapshot))
        elif put_back:
            continue  # the listener needs no other change then
        elif choice.ref is None and frees(spec, service, choice, snapshot):
            draft.actions.append(give_up(spec, service, snapshot))
        elif choice.ref is None or (
            binding.reference == choice.ref and (binding.complete or choice.version is None)
        ):
            continue
        elif _change(draft, spec, service, choice, moving, snapshot, policy, now):
            moving = None if service.ref in refused else str(service.ref)


def _tell(draft: Draft, service: ServiceSpec, choice: Choice, snapshot: Snapshot) -> bool:
    """
    Note what somebody should look at, and put back what was deleted under a Service.

    True if it is put back.
    """
    ref, binding = service.ref, snapshot.bindings[service.ref]
    state = snapshot.services[ref]
    there = {version.ref for version in snapshot.versions}
    if binding.problem is not None:
        draft.notes.append(binding.problem)
    if choice.note is not None:
        draft.notes.append(choice.note)
    missing = binding.reference is not None and binding.reference not in there
    if missing and state.owned.tls_secret and not _is_original(ref, snapshot):
        draft.notes.append(
            f"Service {ref} names Secret {binding.reference}, which we wrote there and which is "
            "gone"
        )
    if not missing or binding.reference not in snapshot.remembered:
        return False
    assert binding.reference is not None  # noqa: S101 - it is missing
    if not any(isinstance(a, PutBack) and a.ref == binding.reference for a in draft.actions):
        why = f"Service {ref} names it"
        draft.actions.insert(0, PutBack(draft.certificate, why, binding.reference))
    return True


def _is_original(ref: ObjectRef, snapshot: Snapshot) -> bool:
    """Say whether the Service names what it named before we came: we may have gone back to it."""
    original = snapshot.journal.originals.get(str(ref)) if snapshot.journal else None
    return original is not None and original == snapshot.bindings[ref].value


def _on_its_way(
    service: ServiceSpec, choice: Choice, snapshot: Snapshot, now: datetime
) -> SecretVersion | None:
    """
    Give the version whose handover at *service* is to be judged: the one that it names.

    Also where another is to follow, if we wrote it: what has begun ends before
    the next begins. Going back waits for nothing.
    """
    binding, state = snapshot.bindings[service.ref], snapshot.services[service.ref]
    by_ref = {version.ref: version for version in snapshot.versions}
    named = by_ref.get(binding.reference) if binding.reference else None
    if named is None or not binding.complete or rejected(named, service.ref):
        return None
    if choice.version is not None and choice.version.ref == named.ref:
        return choice.version
    follows = choice.ref is not None and not choice.back and state.owned.tls_secret
    return named if follows and usable(named, now) else None


def _handover(
    service: ServiceSpec, choice: Choice, snapshot: Snapshot, now: datetime
) -> rollover.Handover | None:
    """Gather what is known of the handover at *service*, if its listener is looked at."""
    ref = service.ref
    version, listener = _on_its_way(service, choice, snapshot, now), snapshot.listeners.get(ref)
    if version is None or listener is None:
        return None
    return rollover.Handover(
        service,
        snapshot.services[ref],
        snapshot.bindings[ref],
        listener,
        version,
        reject.showed_before(snapshot.versions, version, ref),
    )


def _still_unproven(
    service: ServiceSpec, choice: Choice, snapshot: Snapshot, policy: Policy, now: datetime
) -> str | None:
    """Say what is wrong with a handover that was given up."""
    handover = _handover(service, choice, snapshot, now)
    if handover is None:
        return None
    known = {leaf.sha256: (ref, leaf) for ref, leaf in snapshot.foreign.items()}
    known |= {v.leaf.sha256: (v.ref, v.leaf) for v in snapshot.versions if v.leaf}
    proof = rollover.standing_proof(handover.version, service.ref, handover.binding)
    return rollover.still_unproven(handover, proof, known, policy, now)


def _verdict(
    spec: CertificateSpec,
    service: ServiceSpec,
    choice: Choice,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> str | Wait | Reject | None:
    """Judge the handover at *service*, if one has begun and is open."""
    handover = _handover(service, choice, snapshot, now)
    if handover is None:
        return None
    version, binding = handover.version, handover.binding
    ours = frozenset(item.ref for item in snapshot.versions)
    why = reject.refusal(handover, ours, policy, now)
    if why is not None:
        return reject.rejection(spec, handover, why, snapshot)
    proof = rollover.standing_proof(version, service.ref, binding)
    return rollover.judge(
        handover, proof, in_use(snapshot), _to_go(spec, version, snapshot), policy, now
    )


def in_use(snapshot: Snapshot) -> list[SecretVersion]:
    """Give the versions of ours that its Services name."""
    by_ref = {version.ref: version for version in snapshot.versions}
    return [
        by_ref[binding.reference]
        for binding in snapshot.bindings.values()
        if binding.reference in by_ref
    ]


def _to_go(spec: CertificateSpec, version: SecretVersion, snapshot: Snapshot) -> int:
    return sum(
        1
        for service in spec.services
        if rollover.standing_proof(version, service.ref, snapshot.bindings.get(service.ref)) is None
    )


def _served(
    spec: CertificateSpec,
    service: ServiceSpec,
    version: SecretVersion,
    verdict: str,
    snapshot: Snapshot,
) -> MarkServed:
    inside = snapshot.listeners[service.ref].route is Route.INSIDE
    return MarkServed(
        spec.name,
        f"handover to {version.ref} at Service {service.ref} ended: {verdict}",
        service.ref,
        version,
        verdict,
        snapshot.bindings[service.ref].changed_at,
        rollover.BETTER_VIEW if verdict == rollover.UNPROVEN and inside else None,
    )


def _change(
    draft: Draft,
    spec: CertificateSpec,
    service: ServiceSpec,
    choice: Choice,
    moving: str | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> bool:
    """Plan a repoint, or say why not now; true if one is planned."""
    ref, binding = service.ref, snapshot.bindings[service.ref]
    found = drifted(service, choice, snapshot, policy, now)
    blocked = _blocked(spec, service, choice, moving, snapshot, policy, now)
    if blocked is not None:
        if found is not None:
            draft.notes.append(found.held)
        if isinstance(blocked, str):
            draft.notes.append(blocked)
        else:
            draft.waits.append(blocked)
        return False
    if found is not None:
        draft.notes.append(found.note)
        if now < found.repair_at:
            if found.first_seen:
                draft.actions.append(NoteService(spec.name, found.note, ref, drift_rounds=0))
            draft.waits.append(
                Wait(f"Service {ref} is put back", found.repair_at, WaitKind.BACK_OFF)
            )
            return False
    version, target = choice.version, choice.ref
    assert target is not None  # noqa: S101 - the caller looked
    if version is not None and version.marked_at is not None:
        # the mark comes off first, so that a sweep begun elsewhere fails
        draft.actions.append(Unmark(spec.name, f"{version.ref} is to be named again", version))
        return True
    original = binding.value if _is_foreign(service, snapshot, now) else None
    if found is not None or original is not None:
        why = found.note if found else f"Service {ref} named {original} before we came"
        rounds = found.rounds + 1 if found else None
        draft.actions.append(NoteService(spec.name, why, ref, original, rounds))
    if binding.reference == target:
        why = f"Service {ref} lacks what goes with {target}"
    elif choice.back:
        why = f"Service {ref} goes back to {target}, which worked there"
    else:
        why = f"Service {ref} is to name {target}"
    named = snapshot.services[ref].reference
    draft.actions.append(Repoint(spec.name, why, service, version, target, named))
    return True


def _blocked(
    spec: CertificateSpec,
    service: ServiceSpec,
    choice: Choice,
    moving: str | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> Wait | str | None:
    """Say why *service* is not to be written now: a note, or a wait."""
    ref, state, binding = (
        service.ref,
        snapshot.services[service.ref],
        snapshot.bindings[service.ref],
    )
    if spec.paused or state.paused:
        what = f"certificate {spec.name}" if spec.paused else f"Service {ref}"
        return f"paused: {what} is paused, so Service {ref} is not made to name {choice.ref}"
    if binding.problem is not None:
        # a person has to change something: nothing is in flight
        return Wait(binding.problem, now + policy.backstop, WaitKind.BACK_OFF)
    if moving is not None:
        what = f"Service {ref} is next, after {moving}"
        return Wait(what, now + policy.poll_listener, WaitKind.IN_FLIGHT)
    opens_at = snapshot.window_opens_at
    if opens_at is not None and not _cannot_wait(spec, service, choice, snapshot, policy, now):
        what = f"Service {ref} is made to name {choice.ref} in the next rollout window"
        return Wait(what, opens_at, WaitKind.LATER)
    return None


def _cannot_wait(
    spec: CertificateSpec,
    service: ServiceSpec,
    choice: Choice,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> bool:
    """Say whether a rollout window is not waited for: what is there now is worse than a pause."""
    named = snapshot.bindings[service.ref].reference
    if named is None or choice.back:
        return True
    by_ref = {version.ref: version for version in snapshot.versions}
    version = by_ref.get(named)
    if version is None:
        leaf = snapshot.foreign.get(named)
        if leaf is not None:
            does = will_do(leaf, spec, snapshot, service.ref, now)
            return not does or now >= late_time(leaf, policy)
        ours = snapshot.services[service.ref].owned.tls_secret
        gone = ours and not _is_original(service.ref, snapshot)
        return gone or is_useless(named, snapshot, now)
    return (
        version.leaf is None
        or not usable(version, now)
        or now >= late_time(version.leaf, policy)
        or rejected(version, service.ref)
        or withdrawn(version, snapshot.versions)
    )


def _is_foreign(service: ServiceSpec, snapshot: Snapshot, now: datetime) -> bool:
    """
    Say whether the Service names what we never wrote, and the Journal does not know it yet.

    A Service that was made anew, or changed before our first write, has another
    name than the Journal's; one that is of no use takes the place of none.
    """
    ref = service.ref
    binding, state = snapshot.bindings[ref], snapshot.services[ref]
    named = binding.reference
    if binding.value is None or named is None or state.owned.changed_at is not None:
        return False
    if len(binding.value) > LONGEST_NAME or named in {item.ref for item in snapshot.versions}:
        return False
    noted = snapshot.journal.originals.get(str(ref)) if snapshot.journal else None
    return noted is None or (noted != binding.value and not is_useless(named, snapshot, now))
