"""
``renew`` and ``rehearse``: wishes, written where the daemon finds them; it does the rest.

What is asked for stands on a version (`certbaton.io/renew-asked`) or in the Journal, so that it
outlives both this command and the daemon.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from certbaton.cluster.store import Store
from certbaton.commands.desk import EXIT_FAILED, EXIT_OK, EXIT_WAITING, Desk
from certbaton.core.limits import counts, limit_reached
from certbaton.core.renewal import issuer_at
from certbaton.errors import ConfigurationError
from certbaton.model import (
    EVERYWHERE,
    CertificateSpec,
    Failure,
    Journal,
    ObjectRef,
    Outcome,
    Rehearsal,
    SecretVersion,
    Snapshot,
)

WATCH = "`certbaton plan` says what it is at"


def newest(versions: tuple[SecretVersion, ...], now: datetime) -> SecretVersion | None:
    """The newest that could be served: readable, valid, neither refused nor revoked."""
    usable = [
        version
        for version in versions
        if version.leaf is not None
        and version.flaw is None
        and version.leaf.not_after > now
        and version.revoked is None
        and EVERYWHERE not in version.rejected
    ]
    return usable[-1] if usable else None


def renew(desk: Desk, name: str, patience: timedelta | None = None) -> int:
    """
    Ask that certificate *name* be renewed now, whatever is due; with *patience*, wait for it.

    Asked once is enough: again, it says since when. Gives the exit code.
    """
    spec = desk.certificate(name)
    asked = desk.clock()
    known = {version.ref for version in desk.look().versions(name)}
    version = desk.attempt(lambda store: _ask(store, name, asked))
    if version is None:
        desk.say(
            f"{name} has no valid certificate that could be renewed: the daemon orders one without "
            f"being asked; {WATCH}."
        )
        tell_what_is_in_the_way(desk, spec)
        if patience is None:
            return EXIT_OK
        return _await_renewal(desk, name, known, asked, patience)
    if version.renew_asked == asked:
        desk.say(f"{name}: renewal is asked for, in place of {version.ref.name}.")
    else:
        desk.say(f"{name}: renewal was asked for already, at {_shown(version.renew_asked)}.")
        asked = version.renew_asked or asked
    tell_what_is_in_the_way(desk, spec)
    if patience is None:
        desk.say(f"The daemon obtains it and hands it over; {WATCH}.")
        return EXIT_OK
    return _await_renewal(desk, name, known, asked, patience)


def _ask(store: Store, name: str, now: datetime) -> SecretVersion | None:
    """
    Write the wish on the newest version that can be served, and on those that came after it.

    A newer one without it would say that the wish was fulfilled, though listeners refuse it.
    """
    versions = store.versions(name)
    wanted = newest(versions, now)
    if wanted is None:
        return None
    for version in reversed(versions):
        asked = version
        if version.renew_asked is None:
            asked = store.annotate(version, renew_asked=now)
        if version.ref == wanted.ref:
            return asked
    raise AssertionError("the wanted one is among them")


def tell_what_is_in_the_way(desk: Desk, spec: CertificateSpec) -> None:
    """Say why the daemon does not order at once: a pause, a back-off, a limit of our own."""
    if spec.paused:
        desk.say(f"But {spec.name} is paused in the configuration: nothing is ordered until then.")
    journal = desk.cluster.store.journal(spec.name) or Journal()
    failures = [
        failure
        for directory, failure in journal.failures.items()
        if (issuer := issuer_at(spec, directory)) is None or counts(failure, spec, issuer)
    ]
    failure = max(failures, key=lambda failure: failure.at, default=None)
    if failure is not None and failure.retry_at > desk.clock():
        desk.say(
            f"But the last order failed, and the next one waits until {_shown(failure.retry_at)}: "
            f"{failure.message}"
        )
    if (limit := _own_limit(desk, spec)) is not None:
        why, until = limit
        desk.say(f"But the next order waits until {_shown(until)}: {why}.")


def _own_limit(desk: Desk, spec: CertificateSpec) -> tuple[str, datetime] | None:
    """What the daemon will say at the issuer that comes first, of what was issued and failed."""
    journals = tuple(desk.cluster.store.journals().values())
    snapshot = Snapshot(
        accounts={},
        journal=None,
        versions=desk.cluster.store.versions(spec.name),
        services={},
        bindings={},
        listeners={},
        references=frozenset(),
        issued=tuple(record for each in journals for record in each.orders),
        failed_validations=tuple(failed for each in journals for failed in each.failed_validations),
    )
    return limit_reached(spec, snapshot, desk.policy, desk.clock())


def _await_renewal(
    desk: Desk, name: str, known: set[ObjectRef], asked: datetime, patience: timedelta
) -> int:
    def outcome(store: Store) -> SecretVersion | Failure | None:
        version = newest(store.versions(name), desk.clock())
        if version is not None and version.ref not in known:
            return version
        failure = _failure(store, name)
        return failure if failure is not None and failure.at > asked else None

    match desk.wait(patience, outcome):
        case SecretVersion(ref=ref, leaf=leaf) if leaf is not None:
            desk.say(
                f"{name}: {ref.name} is there, valid until {_shown(leaf.not_after)}. The daemon "
                f"hands it over; {WATCH}."
            )
            return EXIT_OK
        case Failure(message=message, retry_at=retry_at):
            desk.say(f"{name}: the order failed, the next one is at {_shown(retry_at)}: {message}")
            return EXIT_FAILED
    desk.say(f"{name}: not renewed yet; the wish stands, and the daemon goes on. {WATCH}.")
    return EXIT_WAITING


def rehearse(desk: Desk, name: str, patience: timedelta) -> int:
    """
    Ask for a rehearsal of certificate *name*, and wait for what comes of it.

    A request that the daemon has not answered yet is waited for, not made anew. Gives the exit
    code: 0 passed, 1 failed or could not be tried, 6 no answer yet.
    """
    spec = desk.certificate(name)
    stages = [each.rehearsal.directory for each in spec.issuers if each.rehearsal is not None]
    if not stages:
        raise ConfigurationError(
            "it has no CA to rehearse at; set one, such as letsencrypt-staging",
            where=f"issuers.{spec.issuer.name}.rehearsal",
        )
    now = desk.clock()
    asked = desk.attempt(lambda store: _ask_rehearsal(store, name, now))
    if spec.paused:
        desk.say(f"But {name} is paused in the configuration: nothing is rehearsed until then.")
    desk.say(f"{name}: a rehearsal at {stages[0]} is asked for; waiting for the daemon.")

    # what fails where orders are placed as well is told of those
    only = [each for each in stages if each not in {one.directory for one in spec.issuers}]

    def answered(store: Store) -> Rehearsal | Failure | None:
        journal = store.journal(name) or Journal()
        found = journal.rehearsal
        if found is not None and _answers(found, asked):
            return found
        failures = [journal.failures[each] for each in only if each in journal.failures]
        return next((each for each in failures if each.retry_at > desk.clock()), None)

    answer = desk.wait(patience, answered)
    if isinstance(answer, Failure):
        desk.say(
            f"{name}: it could not be rehearsed: {answer.message}. That says nothing about a real "
            f"order. The request stands, and is tried again at {_shown(answer.retry_at)}."
        )
        return EXIT_FAILED
    if not isinstance(answer, Rehearsal):
        desk.say(
            f"{name}: no answer yet. The request stands: give this command again to wait on; "
            f"{WATCH}."
        )
        return EXIT_WAITING
    words = f": {answer.message}" if answer.message else ""
    match answer.outcome:
        case Outcome.PASSED:
            desk.say(
                f"{name}: the rehearsal passed{words or ', all names can be validated'}. Nothing "
                "was issued; nothing more is to be done."
            )
            return EXIT_OK
        case Outcome.FAILED:
            desk.say(f"{name}: the rehearsal failed{words}. Correct that, then rehearse again.")
        case _:
            desk.say(
                f"{name}: it could not be rehearsed{words}. That says nothing about a real order."
            )
    return EXIT_FAILED


def _ask_rehearsal(store: Store, name: str, now: datetime) -> datetime:
    journal = store.journal(name) or Journal()
    asked, last = journal.rehearsal_asked, journal.rehearsal
    if asked is not None and (last is None or not _answers(last, asked)):
        return asked
    store.save_journal(name, replace(journal, rehearsal_asked=now), keep_key=True)
    return now


def _answers(found: Rehearsal, asked: datetime) -> bool:
    """Say whether *found* has ended, and was begun for what was asked then or later."""
    return found.asked is not None and found.asked >= asked and found.outcome is not Outcome.OPEN


def _failure(store: Store, name: str) -> Failure | None:
    journal = store.journal(name)
    return journal.failure if journal is not None else None


def _shown(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "an unknown time"
