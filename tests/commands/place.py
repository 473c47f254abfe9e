"""A desk over a cluster and a CA in memory; what the daemon would do is a test's own line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from certbaton.cluster import Cluster, Kind
from certbaton.cluster.services import TLS_SECRET
from certbaton.cluster.store import Store
from certbaton.commands.desk import Desk
from certbaton.model import (
    Account,
    CertificateSpec,
    Instance,
    IssuerSpec,
    Journal,
    KeyType,
    ObjectRef,
    PendingOrder,
    Policy,
    SecretVersion,
    ServiceSpec,
)
from certbaton.pki import PrivateKey
from fakes.ca import DIRECTORY, FakeCa
from fakes.ca_session import FakeSession
from fakes.kube import FakeApi
from fakes.x509 import hierarchy

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANCE = Instance("certbaton", "certbaton")
SHOP = ObjectRef("shop", "shop")
STAGING = "https://staging.ca.test/directory"
LAB = IssuerSpec("lab", DIRECTORY, rehearsal=IssuerSpec("lab-staging", STAGING))
SPEC = CertificateSpec("shop", ("shop.example",), LAB, solver="http", services=(ServiceSpec(SHOP),))


def key() -> PrivateKey:
    """A new key, quickly made."""
    return PrivateKey.generate(KeyType.EC_P256)


class Place:
    """
    What a command meets, and what it said.

    *answer* is what the person says when asked; *daemon* is called, with another process's view
    of the Secrets, whenever the command waits.
    """

    def __init__(self) -> None:
        self.now = NOW
        self.api = FakeApi(now=lambda: self.now)
        self.hands = self.api.client("certbaton")  # the command's own requests
        self.ca = FakeCa(now=lambda: self.now)
        self.ca.resources |= {"keyChange", "revokeCert", "renewalInfo"}
        self.said: list[str] = []
        self.asked: list[str] = []
        self.answer = True
        self.daemon: Callable[[Store], object] = lambda store: None
        self.signed_by: list[str | None] = []
        self.specs = (SPEC,)
        self.issuers: tuple[IssuerSpec, ...] = (LAB,)

    @property
    def desk(self) -> Desk:
        """A new process of the command line."""
        targets = {service.ref for spec in self.specs for service in spec.services}
        return Desk(
            self.specs,
            self.issuers,
            Policy(),
            Cluster(self.hands, INSTANCE, targets),
            connect=self._connect,
            say=self.said.append,
            confirm=self._confirm,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    @property
    def store(self) -> Store:
        """Another process's view of the Secrets, as of now."""
        store = Store(self.api.client("daemon"), INSTANCE)
        store.cache.relist()
        return store

    @property
    def output(self) -> str:
        """All that was said, and asked; no key is ever in it."""
        text = "\n".join([*self.said, *self.asked])
        assert not re.search(r"PRIVATE KEY|MII[A-Za-z0-9+/]{20}", text)
        return text

    def _connect(self, issuer: IssuerSpec, key: PrivateKey, url: str | None) -> FakeSession:
        self.signed_by.append(url)
        return self.ca.connect(issuer, key, url)

    def _confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer

    def _sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.daemon(self.store)

    # --- what is there -----------------------------------------------------------------

    def account(self, mine: PrivateKey | None = None) -> Account:
        """An account that the CA and the cluster know."""
        mine = mine or key()
        url = self.ca.session(mine).new_account()
        store = self.store
        return store.save_account_url(store.create_account(DIRECTORY, mine), url)

    def version(
        self,
        *,
        of: PrivateKey | None = None,
        begins: datetime | None = None,
        account_url: str | None = None,
        certificate: str = "shop",
    ) -> SecretVersion:
        """A version of *certificate*, obtained on the account that is there."""
        of, begins, store = of or key(), begins or self.now - DAY, self.store
        account = store.account(DIRECTORY)
        chain = hierarchy().sign(
            of.unwrapped.public_key(), (f"{certificate}.example",), begins, begins + 90 * DAY
        )
        return store.create_version(
            certificate,
            chain,
            of,
            directory=DIRECTORY,
            account_url=account_url or (account.url if account and account.url else ""),
            certificate_url="https://ca.test/certificate/1",
        )

    def point(self, version: SecretVersion | None) -> None:
        """Let the Service name *version*, as the daemon does it."""
        value = str(version.ref) if version is not None else None
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SHOP.name, "namespace": SHOP.namespace},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]},
        }
        if SHOP not in self.api.all(Kind.SERVICE):
            self.api.create(Kind.SERVICE, SHOP.namespace, body)
        self.api.merge(Kind.SERVICE, SHOP, {"metadata": {"annotations": {TLS_SECRET: value}}})

    def open_order(self, certificate: str = "other") -> None:
        """An order of another certificate on the same account."""
        mine, store = key(), self.store
        pending = PendingOrder(
            directory=DIRECTORY,
            account_url="https://ca.test/account/1",
            names=("other.example",),
            key_type=mine.type,
            public_key_sha256=mine.public_key_sha256,
            reason="DoesNotExist",
            staged_at=self.now,
        )
        journal = store.journal(certificate) or Journal()
        store.save_journal(certificate, replace(journal, pending=pending), key=mine, csr="CSR")

    def seen(self, version: SecretVersion) -> SecretVersion:
        """*version* as it stands now."""
        (found,) = [each for each in self.store.versions() if each.ref == version.ref]
        return found

    def revoked(self) -> Mapping[str, str]:
        """What the CA revoked, leaf hash to reason."""
        return dict(self.ca.revoked)

    def secret(self) -> Iterator[tuple[str, str]]:
        """The entries of the account's Secret."""
        obj = self.api.all(Kind.SECRET)[self.store.account_secret(DIRECTORY)]
        yield from obj["data"].items()


def hash_of(version: SecretVersion) -> str:
    """The leaf's hash, as the CA knows it."""
    assert version.leaf is not None
    return version.leaf.sha256
