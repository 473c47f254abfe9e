"""
dns-01 (RFC 8555 section 8.4): TXT records at ``_acme-challenge``, written by a DnsProvider.

Which DNS service it is, and whether the label is an alias to another zone, is
the provider's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from certbaton.errors import SolverNotReady
from certbaton.model import ChallengeInfo
from certbaton.solvers import DnsProvider, load_dns_provider
from certbaton.solvers.options import Options

# How soon the authoritative server is asked again; it answers from memory.
LOOK_AGAIN = timedelta(seconds=2)


class Dns01Solver:
    """Answers through *provider*; *now* (aware, UTC) is the clock behind ``retry_at``."""

    challenge_type = "dns-01"

    def __init__(
        self,
        provider: DnsProvider,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._provider = provider
        self._now = now

    def start(self) -> None:
        """Nothing runs in the background."""

    def close(self) -> None:
        """Nothing runs in the background."""

    def present(self, challenge: ChallengeInfo) -> None:
        """Add *challenge*'s digest to the values at its record."""
        self._provider.add_txt(record_name(challenge.name), challenge.value)

    def ready(self, challenge: ChallengeInfo) -> None:
        """Return if the authoritative side has the record; else SolverNotReady, in 2 s again."""
        record = record_name(challenge.name)
        if not self._provider.visible(record, challenge.value):
            raise SolverNotReady(
                f"the TXT record at {record} is not yet to be seen at the name server",
                retry_at=self._now() + LOOK_AGAIN,
            )

    def clean_up(self, challenge: ChallengeInfo) -> None:
        """Remove *challenge*'s digest, and no other value at its record."""
        self._provider.remove_txt(record_name(challenge.name), challenge.value)


def record_name(name: str) -> str:
    """Where the CA looks for *name*, which may be a wildcard: that has the same place."""
    return f"_acme-challenge.{name.removeprefix('*.')}"


def build(settings: Mapping[str, object]) -> Dns01Solver:
    """
    Build it from ``provider`` (default rfc2136) and ``settings``, that provider's keys.

    Raises ConfigurationError for an unknown provider or a wrong key.
    """
    options = Options(settings, "dns-01")
    provider = options.text("provider") or "rfc2136"
    section = options.section("settings")
    options.finish()
    return Dns01Solver(load_dns_provider(provider, section))
