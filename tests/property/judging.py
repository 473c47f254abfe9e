"""What is never forgiven in the end, and whether all has come to rest."""

from __future__ import annotations

from certbaton import pki
from certbaton.cluster import Kind
from certbaton.model import EVERYWHERE
from crash.world import LIFETIME, _decoded, _named
from property.cloud import DAY, HAND_MADE, Cloud


class Judged(Cloud):
    """A cloud whose books are read."""

    def false_rejections(self) -> list[str]:
        """Versions that are marked as refused where no place had refused them."""
        found = []
        for instance in self.alive:
            cluster = self.life(instance).cluster
            cluster.refresh()
            for version in cluster.store.versions():
                where = {str(ref) for ref in self.bad.get(version.ref.name, (frozenset(), ""))[0]}
                allowed = where | ({EVERYWHERE} if where else set())
                found += [
                    f"{version.ref} is refused at {key}: {why.why}"
                    for key, why in version.rejected.items()
                    if key not in allowed
                ]
        return found

    def wasted(self) -> list[str]:
        """Certificates that neither time, nor a change, a deletion or a refusal explains."""
        rounds = 1 + (self.now - self.began) // (LIFETIME * 2 / 3 - DAY)
        found = []
        for specs in self.specs.values():
            for name in specs:
                issued = sum(f"{name}.example.test" in item.names for item in self.ca.issued)
                if issued > rounds + self.credit[name]:
                    found.append(
                        f"{issued} orders for {name} in {rounds} rounds, {self.credit[name]} of "
                        "which are explained"
                    )
        return found

    def flip_flops(self) -> list[str]:
        """Services that were written more often than what happened explains."""
        found = []
        for ref, times in self.written.items():
            explained = 2 * len(self.ca.issued) + 6 * self.touched[ref] + 4 * len(self.bad) + 4
            if times > explained:
                found.append(f"{ref} was written {times} times, {explained} are explained")
        return found

    def settled(self) -> list[str]:
        """What is not as it has to be once everything was well for long."""
        found = []
        secrets = self._there(Kind.SECRET)
        for ref, obj in self._there(Kind.SERVICE).items():
            named, holder = _named(obj, ref), self.holder(ref)
            secret = secrets.get(named) if named else None
            if named == HAND_MADE and self.now < self.hand_made_until:
                continue  # it does what is asked, so nothing has to be ordered
            if secret is None or holder is None:
                found.append(f"{ref} names {named}, held by {holder}")
                continue
            leaf = pki.leaf_of(_decoded(secret, "tls.crt"))
            asked = [
                spec.names
                for spec in self.specs[holder].values()
                if ref in {service.ref for service in spec.services}
            ]
            if leaf.names not in asked:
                found.append(f"{ref} has {leaf.names}, and not {asked}")
            if not leaf.not_before <= self.now < leaf.not_after:
                found.append(f"{ref} names {named}, which is valid until {leaf.not_after}")
            if self.served.get(ref) != leaf.sha256:
                found.append(f"{ref} names {named}, and its listener serves something else")
            if self.alerts_in_vain(ref):
                found.append(f"{ref} names {named}, and its listener answers with alerts")
        return found
