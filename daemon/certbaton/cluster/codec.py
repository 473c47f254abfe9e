"""
The Journal and its relatives as JSON, for Secrets and annotations.

Tolerant of what a newer certbaton might add (unknown keys are left out), and of
nothing else: a value of the wrong shape raises `Unreadable`, so that a broken
record is reported rather than half believed. Times are RFC 3339 in UTC. No
message quotes the text that was read: it lies beside a private key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from certbaton.model import (
    Account,
    Drift,
    FailedValidation,
    Failure,
    FailureKind,
    Journal,
    OrderRecord,
    Outcome,
    PendingOrder,
    Proof,
    Rehearsal,
    Rejection,
    RenewalInfo,
    Revocation,
)

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)
Json = Mapping[str, Any]


class Unreadable(ValueError):
    """The text is no such record; ``str()`` says what is wrong, by the name of a key."""


def write_time(moment: datetime) -> str:
    """RFC 3339 in UTC; *moment* is aware."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read_time(text: object) -> datetime:
    """RFC 3339, in UTC where no offset is given; Unreadable otherwise."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        problem = Unreadable("a time is not RFC 3339")
    else:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    raise problem


def write_journal(journal: Journal) -> str:
    """Everything but the resourceVersion, which is the Secret's."""
    pending, rehearsal = journal.pending, journal.rehearsal
    record: dict[str, Any] = {
        "orders": [
            {
                "at": write_time(o.at),
                "directory": o.directory,
                "names": list(o.names),
                "advised": o.advised,
            }
            for o in journal.orders
        ],
        "failedValidations": [
            {"at": write_time(v.at), "directory": v.directory, "name": v.name}
            for v in journal.failed_validations
        ],
        "lastVersion": journal.last_version,
        "originals": dict(sorted(journal.originals.items())),
        "drift": {
            key: {"rounds": found.rounds, "at": write_time(found.at)}
            for key, found in sorted(journal.drift.items())
        },
    }
    if pending is not None:
        record["pending"] = {
            "directory": pending.directory,
            "accountUrl": pending.account_url,
            "names": list(pending.names),
            "keyType": pending.key_type,
            "publicKeySha256": pending.public_key_sha256,
            "reason": pending.reason,
            "stagedAt": write_time(pending.staged_at),
            "profile": pending.profile,
            "profileGot": pending.profile_got,
            "replaces": pending.replaces,
            "notAfter": _written(pending.not_after),
            "finalizing": pending.finalizing,
            "url": pending.url,
            "expires": _written(pending.expires),
            "certificateUrl": pending.certificate_url,
            "chain": pending.chain,
            "advised": pending.advised,
        }
    if journal.failures:
        record["failures"] = {
            directory: _write_failure(failure)
            for directory, failure in sorted(journal.failures.items())
        }
    if rehearsal is not None:
        record["rehearsal"] = {
            "directory": rehearsal.directory,
            "at": write_time(rehearsal.at),
            "names": list(rehearsal.names),
            "accountUrl": rehearsal.account_url,
            "url": rehearsal.url,
            "outcome": rehearsal.outcome,
            "message": rehearsal.message,
            "count": rehearsal.count,
            "retryAt": _written(rehearsal.retry_at),
            "asked": _written(rehearsal.asked),
        }
    if journal.rehearsal_asked is not None:
        record["rehearsalAsked"] = write_time(journal.rehearsal_asked)
    return json.dumps(record, separators=(",", ":"))


def read_journal(text: str | bytes, resource_version: str) -> Journal:
    """Read what `write_journal` wrote, or Unreadable."""
    record = _object(text)
    return Journal(
        resource_version=resource_version,
        pending=_maybe(record, "pending", lambda value: _pending(_mapping(value))),
        failures=_failures(record),
        rehearsal=_maybe(record, "rehearsal", lambda value: _rehearsal(_mapping(value))),
        rehearsal_asked=_maybe(record, "rehearsalAsked", read_time),
        orders=tuple(
            OrderRecord(
                _time(o, "at"), _text(o, "directory"), _texts(o, "names"), o.get("advised") is True
            )
            for o in _records(record, "orders")
        ),
        failed_validations=tuple(
            FailedValidation(_time(v, "at"), _text(v, "directory"), _text(v, "name"))
            for v in _records(record, "failedValidations")
        ),
        last_version=_maybe(record, "lastVersion", str),
        originals={
            key: str(value) for key, value in _mapping(record.get("originals") or {}).items()
        },
        drift={
            key: Drift(_count(found, "rounds"), _time(found, "at"))
            for key, found in _mappings(record.get("drift"))
        },
    )


def write_served(served: Mapping[str, Proof]) -> str:
    """The annotation ``certbaton.io/served``: sorted, so that equal means equal."""
    return json.dumps(
        {key: {"at": write_time(p.at), "how": p.how} for key, p in sorted(served.items())},
        separators=(",", ":"),
    )


def read_served(text: str) -> dict[str, Proof]:
    """Read what `write_served` wrote, or Unreadable."""
    return {
        key: Proof(_time(proof, "at"), _text(proof, "how"))
        for key, proof in _mappings(_object(text))
    }


def write_rejected(rejected: Mapping[str, Rejection]) -> str:
    """The annotation ``certbaton.io/rejected``: sorted, so that equal means equal."""
    return json.dumps(
        {key: {"at": write_time(r.at), "why": r.why} for key, r in sorted(rejected.items())},
        separators=(",", ":"),
    )


def read_rejected(text: str) -> dict[str, Rejection]:
    """Read what `write_rejected` wrote, or Unreadable."""
    return {
        key: Rejection(_time(found, "at"), _text(found, "why"))
        for key, found in _mappings(_object(text))
    }


def write_renewal_info(info: RenewalInfo) -> str:
    """The annotation ``certbaton.io/renewal-info``."""
    return json.dumps(
        {
            "start": write_time(info.start),
            "end": write_time(info.end),
            "explanationUrl": info.explanation_url,
            "fetchedAt": _written(info.fetched_at),
        },
        separators=(",", ":"),
    )


def read_renewal_info(text: str) -> RenewalInfo:
    """Read what `write_renewal_info` wrote, or Unreadable; a window ends after it begins."""
    record = _object(text)
    info = RenewalInfo(
        start=_time(record, "start"),
        end=_time(record, "end"),
        explanation_url=_maybe(record, "explanationUrl", str),
        fetched_at=_maybe(record, "fetchedAt", read_time),
    )
    if info.end <= info.start:
        raise Unreadable("end is not after start")
    return info


def write_revocation(revocation: Revocation) -> str:
    """The annotation ``certbaton.io/revoked``."""
    return json.dumps(
        {"at": write_time(revocation.at), "reason": revocation.reason}, separators=(",", ":")
    )


def read_revocation(text: str) -> Revocation:
    """Read what `write_revocation` wrote, or Unreadable."""
    record = _object(text)
    return Revocation(_time(record, "at"), _text(record, "reason"))


def write_account(directory: str, url: str | None, external_kid: str | None = None) -> str:
    """The part of an account that is no secret."""
    record = {"directory": directory, "url": url}
    if external_kid is not None:
        record["externalKid"] = external_kid
    return json.dumps(record, separators=(",", ":"))


def read_account(text: str | bytes) -> Account:
    """Read what `write_account` wrote, or Unreadable; the rest is the Secret's to say."""
    record = _object(text)
    return Account(
        directory=_text(record, "directory"),
        url=_maybe(record, "url", str),
        external_kid=_maybe(record, "externalKid", str),
    )


def _pending(record: Json) -> PendingOrder:
    return PendingOrder(
        directory=_text(record, "directory"),
        account_url=_text(record, "accountUrl"),
        names=_texts(record, "names"),
        key_type=_text(record, "keyType"),
        public_key_sha256=_text(record, "publicKeySha256"),
        reason=_text(record, "reason"),
        staged_at=_time(record, "stagedAt"),
        profile=_maybe(record, "profile", str),
        profile_got=_maybe(record, "profileGot", str),
        replaces=_maybe(record, "replaces", str),
        not_after=_maybe(record, "notAfter", read_time),
        # a release that did not write it may have finalized what it placed
        finalizing=record.get("finalizing", record.get("url") is not None) is True,
        url=_maybe(record, "url", str),
        expires=_maybe(record, "expires", read_time),
        certificate_url=_maybe(record, "certificateUrl", str),
        chain=_maybe(record, "chain", str),
        advised=record.get("advised") is True,
    )


def _write_failure(failure: Failure) -> Json:
    return {
        "message": failure.message,
        "at": write_time(failure.at),
        "count": failure.count,
        "retryAt": write_time(failure.retry_at),
        "kind": failure.kind,
        "firstAt": _written(failure.first_at),
        "named": failure.named,
        "wish": failure.wish,
    }


def _failures(record: Json) -> dict[str, Failure]:
    """By directory; an older certbaton's one failure did not say where, and is forgotten."""
    return {key: _failure(found) for key, found in _mappings(record.get("failures"))}


def _failure(record: Json) -> Failure:
    return Failure(
        message=_text(record, "message"),
        at=_time(record, "at"),
        count=_count(record, "count"),
        retry_at=_time(record, "retryAt"),
        kind=_one_of(FailureKind, record, "kind", FailureKind.OTHER),
        first_at=_maybe(record, "firstAt", read_time),
        named=record.get("named") is True,
        wish=_maybe(record, "wish", str) or "",
    )


def _rehearsal(record: Json) -> Rehearsal:
    return Rehearsal(
        directory=_text(record, "directory"),
        at=_time(record, "at"),
        names=_texts(record, "names"),
        account_url=_text(record, "accountUrl"),
        url=_maybe(record, "url", str),
        outcome=_one_of(Outcome, record, "outcome", Outcome.SKIPPED),
        message=_text(record, "message"),
        count=_count(record, "count"),
        retry_at=_maybe(record, "retryAt", read_time),
        asked=_maybe(record, "asked", read_time),
    )


def _one_of(words: type[W], record: Json, key: str, other: W) -> W:
    """The word at *key*; *other* where it is one of a newer certbaton's, or missing."""
    value = record.get(key)
    return words(value) if value in set(words) else other


def _written(moment: datetime | None) -> str | None:
    return write_time(moment) if moment is not None else None


def _object(text: str | bytes) -> Json:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return _mapping(value)


def _mapping(value: object) -> Json:
    if not isinstance(value, Mapping):
        raise Unreadable("it is not a JSON object")
    return value


def _mappings(value: object) -> list[tuple[str, Json]]:
    return [(key, _mapping(inner)) for key, inner in _mapping(value or {}).items()]


def _count(record: Json, key: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unreadable(f"{key} is not a whole number")
    return value


def _text(record: Json, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise Unreadable(f"{key} is not a text")
    return value


def _texts(record: Json, key: str) -> tuple[str, ...]:
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unreadable(f"{key} is not a list of texts")
    return tuple(value)


def _time(record: Json, key: str) -> datetime:
    return read_time(_text(record, key))


def _records(record: Json, key: str) -> list[Json]:
    value = record.get(key) or []
    if not isinstance(value, list):
        raise Unreadable(f"{key} is not a list")
    return [_mapping(item) for item in value]


def _maybe(record: Json, key: str, read: Callable[[Any], T]) -> T | None:
    value = record.get(key)
    return None if value is None else read(value)
