"""
What CAA records (RFC 8659, RFC 8657) say about an order, before and after a CA says it.

For callers there is one function and one answer::

    advice = advise(names, identities, account_url, "http-01", resolvers)
    for sentence in advice.sentences: ...   # for the log and an Event; each is one line
    if advice.pinned: ...                   # a rehearsal's `caa` says nothing about production

*names* are a certificate's (A-labels, ``*.`` and IP addresses as they are). *identities* are the
domains by which CAA records name the CA: its directory's ``caaIdentities``, else those of the
well-known table, else none. *account_url* is None while there is no account, or where it cannot
be known. *resolvers* are IP addresses with or without a port; none: the system's.

It is advice and never a wall: nothing here raises, nothing says that an order must not be made,
and it takes about `DEADLINE` seconds at most. CAs look from elsewhere and may see other records.

`look_up` asks DNS and `judge` is pure; `advise` is one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from certbaton.caa.judge import Advice, judge
from certbaton.caa.lookup import DEADLINE, look_up
from certbaton.caa.records import Found, Property

__all__ = ["DEADLINE", "Advice", "Found", "Property", "advise", "judge", "look_up"]


def advise(
    names: Sequence[str],
    identities: Sequence[str],
    account_url: str | None,
    challenge_type: str | None,
    resolvers: Sequence[str] = (),
    *,
    deadline: float = DEADLINE,
) -> Advice:
    """
    Look the CAA records of *names* up and say what they hold against this CA, account and method.

    See the module for what goes in. *challenge_type* is ``http-01`` or ``dns-01``; None leaves
    ``validationmethods`` alone. *deadline* (seconds) is for all names together.
    """
    found = look_up(names, resolvers, deadline=deadline)
    return judge(found, identities, account_url, challenge_type)
