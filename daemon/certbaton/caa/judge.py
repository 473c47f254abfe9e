"""What CAA records hold against one CA, account and validation method: pure, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from certbaton.caa.records import Found, Grant, Property, one_line, read_grant

_MAX_SENTENCES: Final = 10
_MAX_NAMES: Final = 3
_MAX_RECORDS: Final = 3
_MAX_SENTENCE: Final = 1000

# `config check` has no account to compare with, and who pinned the right one has nothing to mend.
_NOT_KNOWN: Final = "and whether that is ours is not known here"


@dataclass(frozen=True, slots=True)
class Advice:
    """
    What CAA records say about an order.

    *sentences* tell what is in the way and what to do, each one printable line; none: nothing is
    known to be. *pinned*: some name is open to this CA only with an ``accounturi``, ours or
    another's. *complete* is False where a name could not be looked up: there "not pinned" is not
    known.
    """

    sentences: tuple[str, ...] = ()
    pinned: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Who asks: the CA's identities in lower case, our account there, and how it validates."""

    identities: tuple[str, ...]
    account: str | None
    method: str | None

    @property
    def name(self) -> str:
        return one_line(self.identities[0], 80)

    def is_named(self, grant: Grant) -> bool:
        return bool(grant.domain) and grant.domain.lower() in self.identities

    def takes(self, grant: Grant) -> bool:
        """Whether the method is one of those that *grant* is for."""
        return grant.methods is None or self.method is None or self.method in grant.methods

    def obstacles(self, grant: Grant) -> tuple[str, ...]:
        """Say why a *grant* that names this CA is none for us."""
        found = []
        if grant.fault is not None:
            return (f"in a record that CAs take for a refusal, since {grant.fault}",)
        if grant.domain not in self.identities:
            found.append("with capital letters, which not every CA takes for the same")
        if grant.account is not None and grant.account != self.account:
            theirs = one_line(grant.account) or '""'
            ours = f"and ours is {one_line(self.account)}" if self.account else _NOT_KNOWN
            found.append(f"for the account {theirs} only, {ours}")
        if not self.takes(grant):
            methods = one_line(", ".join(grant.methods or ()), 80)
            given = f"by {methods} only" if methods else "by no method"
            found.append(f"validated {given}, and ours is {self.method}")
        return tuple(found)

    def record(self, tag: str, grants: Sequence[Grant]) -> str:
        """Write the record that would let us in and keeps what the others restrict."""
        value = self.name
        if any(grant.account is not None for grant in grants):
            value += f"; accounturi={one_line(self.account) if self.account else '<our account>'}"
        if self.method and any(grant.methods is not None for grant in grants):
            value += f"; validationmethods={self.method}"
        return f'0 {tag} "{value}"'


def judge(
    found: Iterable[Found],
    identities: Sequence[str],
    account_url: str | None,
    challenge_type: str | None,
) -> Advice:
    """
    Say what the records in *found* hold against the CA, the account and the challenge type.

    What goes in is described in `certbaton.caa`. The same for several names is said once. The
    same input gives the same answer, in the order of the names.
    """
    known = tuple(dict.fromkeys(each.lower().rstrip(".") for each in identities if each.strip(".")))
    issuer = _Issuer(known, account_url, challenge_type)
    said: dict[str, list[str]] = {}
    pinned, complete = False, True
    for each in found:
        complete = complete and each.trouble is None
        pinned = pinned or _is_pinned(each, issuer)
        for what in _findings(each, issuer):
            said.setdefault(what, []).append(each.name)
    sentences = [one_line(f"{_few(names)}: {what}", _MAX_SENTENCE) for what, names in said.items()]
    more = len(sentences) - _MAX_SENTENCES
    if more > 0:
        sentences[_MAX_SENTENCES:] = [f"CAA says {more} more such things about other names"]
    return Advice(tuple(sentences), pinned, complete)


def _findings(found: Found, issuer: _Issuer) -> Iterable[str]:
    """Say what is wrong with one name, without naming it: others may have the same."""
    if found.trouble is not None:
        yield (
            f"CAA could not be looked up: {one_line(found.trouble)}; a CA that sees the same "
            "refuses: see that the zone's name servers answer questions for CAA"
        )
        return
    place = _place(found)
    critical = [each for each in found.records if each.is_in_the_way]
    if critical:
        yield (
            f"CAA at {place} has {_records(critical)}, whose flag forbids every CA that does not "
            "know the tag to issue: take it away, or set its flag to 0"
        )
    tag, relevant = _relevant(found)
    if not relevant:
        return
    grants = [read_grant(each.value) for each in relevant]
    if not issuer.identities:
        yield from _without_identity(place, tag, relevant, grants)
        return
    named = [grant for grant in grants if issuer.is_named(grant)]
    if not named:
        faults = [grant.fault for grant in grants if grant.fault]
        since = f" ({faults[0]})" if faults else ""
        allowed = "lets no CA issue" if _lets_nobody(grants) else "does not let this CA issue"
        yield (
            f"CAA at {place} {allowed}: it has {_records(relevant)}{since}; add the record "
            f"{issuer.record(tag, ())} there"
        )
        return
    obstacles = min((issuer.obstacles(grant) for grant in named), key=len)
    if obstacles:
        add = "unless it is, add" if any(_NOT_KNOWN in each for each in obstacles) else "add"
        yield (
            f"CAA at {place} names {issuer.name}, but {', and '.join(obstacles)}; {add} the record "
            f"{issuer.record(tag, named)} there"
        )


def _without_identity(
    place: str, tag: str, relevant: Sequence[Property], grants: Sequence[Grant]
) -> Iterable[str]:
    """Say what can be said of a CA that does not tell by which domain records name it."""
    if _lets_nobody(grants):
        yield (
            f"CAA at {place} lets no CA issue: it has {_records(relevant)}; add the record "
            f'0 {tag} "<the domain of the CA>" there'
        )
    else:
        yield (
            f"CAA at {place} has {_records(relevant)}, and whether one of them is this CA is not "
            "known, without caaIdentities of its directory's: ask its operator"
        )


def _is_pinned(found: Found, issuer: _Issuer) -> bool:
    """Whether every record that lets this CA in by our method is for one account."""
    _, relevant = _relevant(found)
    grants = [read_grant(each.value) for each in relevant]
    mine = [
        grant
        for grant in grants
        if grant.fault is None
        and grant.domain
        and (not issuer.identities or issuer.is_named(grant))
        and issuer.takes(grant)
    ]
    return bool(mine) and all(grant.account is not None for grant in mine)


def _relevant(found: Found) -> tuple[str, list[Property]]:
    """Give the tag that counts for the name, and its records (RFC 8659 sections 4.2 and 4.3)."""
    if found.name.startswith("*."):
        wild = [each for each in found.records if each.tag == "issuewild"]
        if wild:
            return "issuewild", wild
    return "issue", [each for each in found.records if each.tag == "issue"]


def _lets_nobody(grants: Sequence[Grant]) -> bool:
    return all(not grant.domain or grant.fault for grant in grants)


def _place(found: Found) -> str:
    if not found.target:
        return one_line(found.owner)
    return f"{one_line(found.target)} (of which {one_line(found.owner)} is an alias)"


def _records(records: Sequence[Property]) -> str:
    more = len(records) - _MAX_RECORDS
    shown = " and ".join(str(each) for each in records[:_MAX_RECORDS])
    return f"{shown} and {more} more" if more > 0 else shown


def _few(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    shown = ", ".join(one_line(name) for name in names[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown
