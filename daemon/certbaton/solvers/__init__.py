"""
Solvers: how the answer to a challenge gets to where the CA looks for it.

Two small protocols, found by entry points, so that a package of somebody
else's can bring another. A solver knows neither the CA nor the cluster; it is
given challenges and keeps nothing that could not be given to it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Protocol, cast, runtime_checkable

from certbaton.errors import ConfigurationError
from certbaton.model import ChallengeInfo

SOLVERS = "certbaton.solvers"
DNS_PROVIDERS = "certbaton.dns_providers"


class Solver(Protocol):
    """
    Answers challenges of one type (RFC 8555 section 8).

    Threads call it at the same time for challenges of different certificates,
    also for the same name. After a crash it is given the same challenges again
    and knows nothing of them. Its exceptions never hold a challenge's value.
    Each method may raise SolverNotReady where the world may change by itself
    (a name server that does not answer) and PermanentError where a person must
    change something, in one sentence that says what.
    """

    @property
    def challenge_type(self) -> str:
        """The type as in RFC 8555: ``http-01``, ``dns-01``."""

    def start(self) -> None:
        """Begin what runs in the background. ConfigurationError if that is impossible."""

    def close(self) -> None:
        """End it and free what it holds. MUST succeed when nothing runs."""

    def present(self, challenge: ChallengeInfo) -> None:
        """
        Put *challenge*'s answer where the CA will look.

        MUST be idempotent and quick: it starts the answer on its way and does
        not wait until it has arrived. MUST leave other challenges' answers,
        also at the same name, as they are.
        """

    def ready(self, challenge: ChallengeInfo) -> None:
        """
        Return at once if the CA would find *challenge*'s answer now.

        Raises SolverNotReady, with *retry_at* where a time to look again is
        known, while it is not there yet. Never sleeps.
        """

    def clean_up(self, challenge: ChallengeInfo) -> None:
        """
        Take *challenge*'s answer away, and nothing else.

        MUST succeed when nothing is there, and without `present` having
        succeeded, or having been called, before.
        """


@runtime_checkable
class AnswersOthers(Protocol):
    """What a solver may do beside: answer challenges that another replica was given."""

    def answer_others(self, value_of: Callable[[str], str | None]) -> None:
        """
        From now on answer a token that was not presented here with what *value_of* gives for it.

        None is for a token that nobody may answer. Threads of the solver call it.
        """


class DnsProvider(Protocol):
    """
    Writes TXT records at one DNS service. *name* is absolute, without a dot at the end.

    Several values live side by side at one name: a.example and *.a.example
    are validated at the same one. Errors as for `Solver`.
    """

    def add_txt(self, name: str, value: str) -> None:
        """Add *value* to the TXT records at *name*. MUST succeed if it is there already."""

    def remove_txt(self, name: str, value: str) -> None:
        """Remove *value* alone. MUST succeed if it, or the name, is not there."""

    def visible(self, name: str, value: str) -> bool:
        """Whether the authoritative side now answers *value* at *name*; no cache in between."""


def load(challenge_type: str, settings: Mapping[str, object]) -> Solver:
    """
    Build the solver that is installed for *challenge_type*; it is not started yet.

    *settings* are its keys as in the configuration file. Raises
    ConfigurationError for a type without solver and for settings that it refuses.
    """
    return cast(Solver, _build(SOLVERS, "solver for the challenge type", challenge_type, settings))


def load_dns_provider(provider: str, settings: Mapping[str, object]) -> DnsProvider:
    """Build the DNS provider called *provider*; *settings* and errors as for `load`."""
    return cast(DnsProvider, _build(DNS_PROVIDERS, "DNS provider", provider, settings))


def _build(group: str, kind: str, name: str, settings: Mapping[str, object]) -> object:
    found = entry_points(group=group)
    for entry in found:
        if entry.name != name:
            continue
        try:
            build = cast("Callable[[Mapping[str, object]], object]", entry.load())
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"the {kind} {name!r} is installed as {entry.value} but cannot be loaded ({error})"
            ) from error
        return build(settings)
    installed = ", ".join(sorted({entry.name for entry in found})) or "none"
    raise ConfigurationError(f"there is no {kind} {name!r}; installed: {installed}")
