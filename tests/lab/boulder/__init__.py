"""
A proxy in front of Pebble that does what Let's Encrypt does and Pebble doesn't.

It keeps the Host, so that the URLs that are signed match what Pebble sees; it rewrites answers,
which aren't signed. What it refuses itself never reaches Pebble (and so isn't verified)::

    with Pebble(http_port=port) as pebble, Boulder(pebble) as boulder:
        issuer = IssuerSpec("lab", boulder.directory, boulder.ca_bundle)
        boulder.answer("newOrder", 503, times=2, retry_after=1)
        ...
        assert len(boulder.finalized) == len(stored)

**Ways** (`boulder.ways`, see `Ways`): on by default, as Boulder has them; `pebbles_own()` is none.

**Limits** (`boulder.limits`): Let's Encrypt's token buckets. A hit is answered as Let's Encrypt
does and kept in `boulder.limits_hit`; leaving the block then fails, unless `may_hit_limits`.
`boulder.limits.sizes["newOrders"] = (3, 3600)` makes one smaller.

**Faults**, by kind of request ("newOrder", "order", "finalize", ..., "*"), `times` (None: always),
`skip` and `name`; each returns a Rule with `hits` and `stop()`; `calm()` ends all:

==============  ==================================================================================
`answer`        a refusal in Pebble's place: status, type, Retry-After (seconds or `After`), a page
`cut`           the connection, "before" Pebble sees the request or "after" it answered
`bad_nonce`     badNonce, *times* in a row
`rewrite`       Pebble's answer: document, headers, body, `trickle`, `pad`
`pause`         the paused name of Let's Encrypt's; `change_terms` for userActionRequired
`refuse`        validations of a name: `caa`, or any other type
`advise`        renewal information: "past", "future", "reversed", "malformed", "empty", "absent"
`date_off`      the Date of every answer
==============  ==================================================================================

**Counts**: `counts()` and `seen()` of requests, `orders()`, `finalized`, `certificates_issued()`;
the first three for one account as well.
"""

from lab.boulder.book import Finalized, Order
from lab.boulder.desk import Seen
from lab.boulder.limits import Hit, Limits
from lab.boulder.proxy import Boulder, LimitHit
from lab.boulder.rules import TERMS, UNPAUSE, Rule
from lab.boulder.ways import Ways, pebbles_own
from lab.boulder.words import After, Problem

__all__ = [
    "After", "Boulder", "Finalized", "Hit", "LimitHit", "Limits", "Order", "Problem", "Rule",
    "Seen", "TERMS", "UNPAUSE", "Ways", "pebbles_own",
]  # fmt: skip
