"""A daemon that tests stop and start again, changed; and a clerk who decides what OCI takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from e2e.harness import Certbaton, leaf_hash, name_of, proofs, served_leaf, until
from lab.kube import KubeError
from lab.oci.api import ServiceError, WorkRequest
from lab.oci.loadbalancer import LoadBalancer
from lab.oci.tls import Certificate
from lab.process import Process
from lab.world import NAMESPACE, TLS_SECRET, World

Obj = dict[str, Any]

# (Service, certificate's name there, the how manieth of that certificate) → what OCI answers.
Rule = Callable[[str, str, int], ServiceError | None]

REJECTED = "certbaton.io/rejected"


class Running:
    """
    One release, its daemon running from `__enter__` to `__exit__`.

    *config* holds what differs from the lab's configuration.
    """

    def __init__(self, world: World, release: str, *certificates: Obj, **config: Any) -> None:
        self.world = world
        self._more = {"healthPort": 0, **config}
        self.certbaton = Certbaton(world, self._config(certificates), release=release)
        self.lines: list[str] = []
        self._daemon: Process | None = None
        self.began = 0  # how many lines there were before the last start

    def _config(self, certificates: tuple[Obj, ...]) -> Obj:
        return self.world.configuration(*certificates, **self._more)

    def __enter__(self) -> Self:
        self.began = len(self.lines)
        self._daemon = self.certbaton.start(on_line=self.lines.append)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._daemon is not None:
            self._daemon.stop(deadline=30.0)

    def restart(self, *certificates: Obj, **config: Any) -> None:
        """Stop it, and start it with other certificates; *config* is added to what it had."""
        self.__exit__(None, None, None)
        self._more |= config
        self.certbaton.configure(self._config(certificates))
        self.__enter__()

    @property
    def tail(self) -> str:
        """The end of the daemon's log."""
        assert self._daemon is not None
        return self._daemon.log_tail(20)

    # What it says.

    def told(self, *words: str, since: int = 0) -> list[Obj]:
        """Its lines from number *since* on that hold all of *words*."""
        assert self._daemon is not None
        self._daemon.drain()
        return [
            json.loads(line)
            for line in self.lines[since:]
            if line.startswith("{") and all(word in line for word in words)
        ]

    def wait_told(self, *words: str, since: int = 0, timeout: float = 30.0) -> Obj:
        """The first line that holds all of *words*, waited for."""
        self.wait(lambda: self.told(*words, since=since), f"{words} was not said", timeout)
        return self.told(*words, since=since)[0]

    def done(self, action: str, certificate: str) -> list[Obj]:
        """Its lines about an action that it carried out."""
        return [
            line
            for line in self.told('"done"')
            if (line["event"], line.get("action"), line.get("certificate"))
            == ("done", action, certificate)
        ]

    def wait(self, condition: Callable[[], Any], trouble: str, timeout: float = 40.0) -> Any:
        """What *condition* gives once true; the daemon's last lines are in the failure."""
        try:
            return until(condition, trouble, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail}") from None

    # What there is.

    def versions(self, certificate: str) -> list[Obj]:
        """The TLS Secrets of a certificate, oldest first."""
        return self.certbaton.versions(certificate)

    def named(self, service: str, namespace: str = "shop") -> str | None:
        """What the Service's tls-secret says; None where it says nothing, or is not there."""
        try:
            obj = self.world.service(namespace, service)
        except KubeError as error:
            if error.status != 404:
                raise
            return None
        value = (obj["metadata"].get("annotations") or {}).get(TLS_SECRET)
        return None if value is None else str(value)

    def names(self, service: str, version: Obj) -> bool:
        """Whether the Service names that version, and its listener shows it."""
        return self.named(service) == f"{NAMESPACE}/{name_of(version)}" and (
            served_leaf(self.world, "shop", service) == leaf_hash(version)
        )

    def whole(self, certificate: str, *services: str, than: str = "") -> Obj | None:
        """
        The newest version, if all *services* name, show, and are noted to have it.

        With *than*, only if it has another name than that one.
        """
        versions = self.versions(certificate)
        if not versions or name_of(versions[-1]) == than:
            return None
        newest = versions[-1]
        noted = proofs(newest)
        if not all(f"shop/{one}" in noted and self.names(one, newest) for one in services):
            return None
        return newest

    def wait_whole(
        self, certificate: str, *services: str, than: str = "", timeout: float = 40.0
    ) -> Obj:
        """`whole`, waited for; without *services* the one of the certificate's name."""
        services = services or (certificate,)
        found: Obj = self.wait(
            lambda: self.whole(certificate, *services, than=than),
            f"{certificate} is not served at {', '.join(services)}",
            timeout,
        )
        return found


def rejections(version: Obj) -> dict[str, Obj]:
    """Who refuses a version, since when, and why."""
    noted = version["metadata"].get("annotations", {}).get(REJECTED, "{}")
    found: dict[str, Obj] = json.loads(noted)
    return found


class Clerk:
    """
    Decides, Service by Service, what OCI's CreateCertificate answers.

    Versions are numbered as they come: the first of a certificate is 1 at all Services.
    """

    def __init__(self, world: World) -> None:
        api = world.cloud.api
        self._create = api.create_certificate
        self._seen: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.rule: Rule = lambda service, certificate, number: None
        # bound to this one object, so that the lab's own class stays as it is
        vars(api)["create_certificate"] = self.create_certificate

    def create_certificate(self, balancer: LoadBalancer, certificate: Certificate) -> WorkRequest:
        """The API's operation."""
        name = certificate.name
        stem = name.rsplit("-", 2)[0]
        seen = self._seen.setdefault(stem, [])
        if name not in seen:
            seen.append(name)
        self.asked.append((balancer.service, name))
        error = self.rule(balancer.service, stem, seen.index(name) + 1)
        if error is not None:
            raise error
        return self._create(balancer, certificate)

    def refused(self, service: str) -> int:
        """How often something was asked for that Service's load balancer."""
        return sum(1 for one, _ in self.asked if one == service)


def bad_certificate() -> ServiceError:
    """OCI's answer to a certificate that it will not have."""
    return ServiceError(
        400, "InvalidParameter", "The certificate is not acceptable", "CreateCertificate"
    )
