"""
Answers to http-01 challenges that another replica was given.

The CA's request comes to any replica. A key authorization is the token and the thumbprint of the
account's key (RFC 8555 section 8.1), which is no secret: so whoever has the token, as the CA's
request brings it, and knows which account asks, needs nothing else. Which one that is the
Journals say: that of the order, or rehearsal, that is open. With some open at two CAs at once it
is not known, and nothing is answered.

Is that safe? Anybody may get our thumbprint so, and have us vouch for a name that leads here, but
only towards our own account, whose key it takes to use that; and only while an order of ours is
open. What is echoed is base64url, as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from certbaton.ca.session import thumbprint
from certbaton.cluster import Cluster
from certbaton.errors import CertbatonError
from certbaton.model import Journal, Outcome

# At least 128 bits, section 8.3; Let's Encrypt's have 43 characters.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")


class OthersChallenges:
    """Key authorizations by what *cluster* knows. No request."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: tuple[str, str] = "", ""

    def value_of(self, token: str) -> str | None:
        """The key authorization for *token*; None where it is not known."""
        if not _TOKEN.fullmatch(token):
            return None
        asking = {each for one in self._cluster.store.journals().values() for each in _asking(one)}
        if len(asking) != 1:
            return None
        try:
            key = self._cluster.store.account_key(asking.pop())
        except CertbatonError:
            return None
        if key is None:
            return None
        which, print_ = self._known
        if which != key.public_key_sha256:
            which, print_ = self._known = key.public_key_sha256, thumbprint(key)
        return f"{token}.{print_}"


def _asking(journal: Journal) -> Iterator[str]:
    """Name the CAs at which an order or a rehearsal is open."""
    if journal.pending is not None:
        yield journal.pending.directory
    rehearsal = journal.rehearsal
    if rehearsal is not None and rehearsal.outcome is Outcome.OPEN and rehearsal.url is not None:
        yield rehearsal.directory
