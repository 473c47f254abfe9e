"""What the commands work with: the specifications, the cluster, the CAs, and the person."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from certbaton.ca.order import CertificateAuthority
from certbaton.cluster import Cluster
from certbaton.cluster.store import Store
from certbaton.errors import ClusterUnavailable, ConfigurationError, Conflict
from certbaton.model import CertificateSpec, IssuerSpec, Policy
from certbaton.pki import PrivateKey

T = TypeVar("T")

EXIT_OK, EXIT_FAILED, EXIT_WAITING = 0, 1, 6
LOOK_EVERY: Final = 1.0
# The daemon may write at the same moment; a lost race is one more look.
_TRIES: Final = 5


@dataclass(frozen=True)
class Desk:
    """
    One command's means: *specs*, *issuers* and *policy* are those of the configuration.

    *connect* makes a session at a CA; *say* prints a line, *confirm* asks a question and is told
    yes or no; *sleep* waits that many seconds.
    """

    specs: tuple[CertificateSpec, ...]
    issuers: tuple[IssuerSpec, ...]
    policy: Policy
    cluster: Cluster
    connect: Callable[[IssuerSpec, PrivateKey, str | None], CertificateAuthority]
    say: Callable[[str], None]
    confirm: Callable[[str], bool]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]

    def look(self) -> Store:
        """Our Secrets as they are now: a request for each 500. ClusterUnavailable and others."""
        self.cluster.store.cache.relist()
        return self.cluster.store

    def attempt(self, write: Callable[[Store], T]) -> T:
        """Do *write* on what is there now; where somebody wrote in between, look again first."""
        for _ in range(_TRIES - 1):
            try:
                return write(self.look())
            except Conflict:
                continue
        return write(self.look())

    def wait(self, timeout: timedelta, found: Callable[[Store], T | None]) -> T | None:
        """
        What *found* gives, looking every second; None if it was nothing until *timeout* is over.

        An API server that cannot be reached is one that may be reached the next time.
        """
        end = self.clock() + timeout
        while True:
            try:
                if (answer := found(self.look())) is not None:
                    return answer
            except (ClusterUnavailable, Conflict):
                if self.clock() >= end:
                    raise
            if self.clock() >= end:
                return None
            self.sleep(LOOK_EVERY)

    # --- what the configuration says ---------------------------------------------------

    def certificate(self, name: str) -> CertificateSpec:
        """The certificate of that name; ConfigurationError where none is configured."""
        specs = {spec.name: spec for spec in self.specs}
        if name not in specs:
            raise ConfigurationError(
                f"no certificate {name!r} is configured; {_there_are('certificates', specs)}"
            )
        return specs[name]

    def issuer(self, name: str) -> IssuerSpec:
        """The issuer of that name, or at that directory; ConfigurationError where there is none."""
        known = self._issuers()
        for issuer in known:
            if name in (issuer.name, issuer.directory):
                return issuer
        names = (issuer.name for issuer in known)
        raise ConfigurationError(
            f"no issuer {name!r} is configured; {_there_are('issuers', names)}"
        )

    def issuer_at(self, directory: str) -> IssuerSpec:
        """How to talk to the CA at *directory*, configured or not."""
        for issuer in self._issuers():
            if issuer.directory == directory:
                return issuer
        return IssuerSpec(name=directory, directory=directory)

    def configured(self, directory: str) -> bool:
        """Say whether the configuration tells how to talk to the CA at *directory*."""
        return directory in {issuer.directory for issuer in self._issuers()}

    def turns_for(self, issuer: IssuerSpec) -> bool:
        """Say whether the daemon has turns that look after an account there."""
        used = [each for spec in self.specs for each in spec.issuers]
        used += [each.rehearsal for each in used if each.rehearsal is not None]
        return issuer.directory in {each.directory for each in used}

    def users_of(self, issuer: IssuerSpec) -> list[str]:
        """The certificates that may be ordered there, by name."""
        return sorted(
            spec.name
            for spec in self.specs
            if issuer.directory in {each.directory for each in spec.issuers}
        )

    def _issuers(self) -> list[IssuerSpec]:
        """All that are configured, and their rehearsals; those of a configured name first."""
        used = [issuer for spec in self.specs for issuer in spec.issuers]
        known = [*used, *self.issuers]  # a certificate's own, where several are one CA
        return known + [issuer.rehearsal for issuer in known if issuer.rehearsal is not None]


def _there_are(what: str, names: Iterable[str]) -> str:
    found = sorted(set(names))
    return f"there are the {what} {', '.join(found)}" if found else f"there are no {what}"
