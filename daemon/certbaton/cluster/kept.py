"""
The Secrets of an instance, sorted out once for all who read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from certbaton.cluster.records import JournalRecord, Record, VersionRecord
from certbaton.model import Journal, SecretVersion


@dataclass(frozen=True, slots=True)
class Kept:
    """Versions by certificate and oldest first, readable Journals, and what cannot be read."""

    versions: tuple[SecretVersion, ...]
    versions_of: Mapping[str, tuple[SecretVersion, ...]]
    journals: Mapping[str, Journal]
    problems: tuple[str, ...]


def sort_out(records: Sequence[Record]) -> Kept:
    """Go through *records* once."""
    found: dict[str, list[SecretVersion]] = {}
    for each in records:
        if isinstance(each, VersionRecord):
            found.setdefault(each.version.certificate, []).append(each.version)
    versions_of = {certificate: in_order(found[certificate]) for certificate in sorted(found)}
    return Kept(
        tuple(version for versions in versions_of.values() for version in versions),
        versions_of,
        {
            record.certificate: record.journal
            for record in records
            if isinstance(record, JournalRecord) and record.journal is not None
        },
        tuple(sorted(record.problem for record in records if record.problem)),
    )


def in_order(versions: Iterable[SecretVersion]) -> tuple[SecretVersion, ...]:
    """By certificate, then oldest first."""

    def age(version: SecretVersion) -> tuple[str, float, str]:
        begin = version.leaf.not_before.timestamp() if version.leaf else 0.0
        return version.certificate, begin, version.ref.name

    return tuple(sorted(versions, key=age))


def lost(known: Mapping[str, JournalRecord], there: Mapping[str, Journal]) -> tuple[Journal, ...]:
    """Of the Journals that are *known*, those that are not *there* any more."""
    return tuple(
        unwritten(record).journal or Journal()
        for certificate, record in sorted(known.items())
        if certificate not in there
    )


def unwritten(lost: JournalRecord) -> JournalRecord:
    """*lost* as what is still to be written."""
    journal = replace(lost.journal or Journal(), resource_version="")
    return replace(lost, journal=journal, resource_version="")
