"""
The Secrets: versions and Journals of one instance; its accounts are in ``accounts``.

Reads come from the watch cache, which also hears the answers to the writes made
here. Each write is one request and can be done twice: a create that meets its
own work is fine, everything else carries the resourceVersion it was decided on
and raises Conflict where somebody wrote in between. After a Conflict the cache
already holds what is there now (one more read), so that looking again helps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from certbaton import pki
from certbaton.cluster import codec, records
from certbaton.cluster.accounts import Accounts, load_key
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import AlreadyExists, Kind, KubeApi, Obj, ref_of, version_of
from certbaton.cluster.derived import Derived
from certbaton.cluster.foreign import ForeignLeaves
from certbaton.cluster.kept import in_order, lost, sort_out, unwritten
from certbaton.cluster.records import JournalRecord, Record, VersionRecord
from certbaton.cluster.writes import SecretWrites
from certbaton.errors import ConfigurationError, Conflict, ObjectGone, PermanentError
from certbaton.model import (
    Instance,
    Journal,
    ObjectRef,
    Proof,
    Rejection,
    RenewalInfo,
    Revocation,
    SecretVersion,
)
from certbaton.pki import PrivateKey


class _Keep:
    """Says: leave this as it is."""


KEEP: Final = _Keep()


class Store(Accounts):
    """
    Everything of *instance* that lies in Secrets of its own namespace.

    *account_secrets* has the names of accounts' Secrets, by directory, that are not the usual ones.
    """

    def __init__(
        self, api: KubeApi, instance: Instance, account_secrets: Mapping[str, str] | None = None
    ) -> None:
        self._api = api
        self._account_secrets = dict(account_secrets or {})
        self._instance = instance
        self._namespace = instance.namespace
        self._ours = f"{records.INSTANCE}={records.label(str(instance))}"
        self.cache: WatchCache[Record] = WatchCache(
            api,
            Kind.SECRET,
            namespace=instance.namespace,
            label_selector=self._ours,
            project=self._project,
        )
        self._known: dict[ObjectRef, VersionRecord] = {}
        self._journals: dict[str, JournalRecord] = {}
        self._kept = Derived(lambda: self.cache.revision, lambda: sort_out(self.cache.values()))
        self._gone = Derived(
            lambda: (self.cache.revision, len(self._known)),
            lambda: self.cache.missing(tuple(self._known)),
        )
        self._lost = Derived(
            lambda: (self.cache.revision, len(self._journals)),
            lambda: lost(self._journals, self.journals()),
        )
        self._secrets = SecretWrites(api, instance.namespace, self.cache)
        self.foreign = ForeignLeaves(api, instance)

    # --- reading: no request, unless it says live --------------------------------------

    def versions(self, certificate: str | None = None) -> tuple[SecretVersion, ...]:
        """All versions, or those of one certificate; by certificate, then oldest first."""
        kept = self._kept()
        return kept.versions if certificate is None else kept.versions_of.get(certificate, ())

    def list_versions_live(self, certificate: str) -> tuple[SecretVersion, ...]:
        """Those of one certificate as they are now: one request for each 500."""
        chosen = records.labels(records.VERSION, self._instance, certificate)
        found: list[SecretVersion] = []
        for page, _ in self._api.pages(
            Kind.SECRET,
            self._namespace,
            label_selector=",".join(f"{key}={value}" for key, value in sorted(chosen.items())),
        ):
            for obj in page:
                self.cache.learn(obj)
                found.append(self._version(obj))
        return in_order(found)

    def version_key(self, ref: ObjectRef) -> PrivateKey | None:
        """
        The private key of a version, read live. One request; it is not kept.

        None where the Secret is not there, no version of ours, or its key cannot be read.
        """
        pem = self._version_entry(ref, records.TLS_KEY)
        try:
            return PrivateKey.load(pem) if pem is not None else None
        except ConfigurationError:
            return None

    def version_chain(self, ref: ObjectRef) -> str | None:
        """The chain of a version in PEM, read live; None as in `version_key`. One request."""
        chain = self._version_entry(ref, records.TLS_CRT)
        return chain.decode("ascii", "replace") if chain is not None else None

    def journal(self, certificate: str) -> Journal | None:
        """
        A certificate's Journal; None where there is none, or it cannot be read (`problems`).

        One that was deleted under us, or overwritten with nonsense, is as the watch
        last delivered it, without a resourceVersion: the next write puts it back.
        """
        record = self._journal(certificate)
        return record.journal if record else None

    def journals(self) -> Mapping[str, Journal]:
        """All readable Journals of this instance, by certificate; the same until one changes."""
        return self._kept().journals

    def lost_journals(self) -> tuple[Journal, ...]:
        """What is remembered of Journals that are not there, or not readable, any more."""
        return self._lost()

    def pending_key(self, certificate: str) -> PrivateKey | None:
        """The key of a pending order. PermanentError where it cannot be read."""
        record = self._journal(certificate)
        return load_key(record.ref, record.key) if record and record.key is not None else None

    def pending_csr(self, certificate: str) -> str | None:
        """The CSR of a pending order, in PEM."""
        record = self._journal(certificate)
        return record.csr if record else None

    def problems(self) -> tuple[str, ...]:
        """One sentence for each record that cannot be read; the others are complete."""
        return self._kept().problems

    def remembered(self, named: frozenset[ObjectRef]) -> frozenset[ObjectRef]:
        """Versions among *named* that somebody deleted, and whose content the watch delivered."""
        gone = self._gone()
        for ref in gone - named:
            self._known.pop(ref, None)
        return frozenset(ref for ref in gone & named if ref in self._known)

    # --- versions ----------------------------------------------------------------------

    def put_back(self, ref: ObjectRef) -> SecretVersion:
        """Create a deleted version again: same name, same content. One request."""
        known = self._known.get(ref)
        if known is None or not known.body:
            raise PermanentError(f"the content of Secret {ref} is not known any more")
        try:
            answer = self._secrets.guarded(
                ref, lambda: self._api.create(Kind.SECRET, self._namespace, known.body)
            )
        except AlreadyExists:
            there = self.cache.get(ref)  # the Conflict has made it look
            if isinstance(there, VersionRecord):
                return there.version
            self._known.pop(ref, None)  # the next best has to do
            raise PermanentError(
                f"Secret {ref} was deleted while a Service names it, and another one without our"
                " labels is in its place now; delete or rename it"
            ) from None
        self.cache.learn(answer)
        return self._version(answer)

    def create_version(
        self,
        certificate: str,
        chain: str,
        key: PrivateKey,
        *,
        directory: str,
        account_url: str,
        certificate_url: str,
        order_url: str | None = None,
        profile: str | None = None,
        profile_got: str | None = None,
    ) -> SecretVersion:
        """
        Store a new version under the name that comes from its content. One request.

        Where a Secret of that name exists already it is read (one more) and
        must be this version: PermanentError otherwise.
        """
        chain = pki.normalise_chain(chain)
        ref = ObjectRef(self._namespace, pki.version_name(certificate, chain))
        annotations = {
            records.DIRECTORY: directory,
            records.ACCOUNT_URL: account_url,
            records.CERTIFICATE_URL: certificate_url,
        }
        for name, value in (
            (records.ORDER_URL, order_url),
            (records.PROFILE, profile),
            (records.PROFILE_GOT, profile_got),
        ):
            if value is not None:
                annotations[name] = value
        body = records.secret(
            ref,
            records.labels(records.VERSION, self._instance, certificate),
            {records.TLS_CRT: chain, records.TLS_KEY: key.pem},
            type_="kubernetes.io/tls",
            annotations=annotations,
            immutable=True,
        )
        try:
            answer = self._api.create(Kind.SECRET, self._namespace, body)
        except AlreadyExists:
            answer = self._api.read(Kind.SECRET, ref)
            if not _same_version(answer, body):
                raise PermanentError(
                    f"a Secret {ref} with other content is there already; certbaton never"
                    " overwrites one: look at it, then delete it if no Service needs it"
                ) from None
        self.cache.learn(answer)
        return self._version(answer)

    def annotate(
        self,
        version: SecretVersion,
        *,
        served: Mapping[str, Proof] | None = None,
        rejected: Mapping[str, Rejection] | None = None,
        marked_at: datetime | _Keep | None = KEEP,
        renewal_info: RenewalInfo | _Keep | None = KEEP,
        renew_asked: datetime | _Keep | None = KEEP,
        revoked: Revocation | _Keep | None = KEEP,
    ) -> SecretVersion:
        """
        Write what became of a version. One request.

        *served* (keyed ``namespace/name``) and *rejected* are added to what *version* has; of
        the others None takes the annotation off. Conflict where it changed since.
        """
        changes: dict[str, str | None] = {}
        if served is not None:
            changes[records.SERVED] = codec.write_served({**version.served, **served})
        if rejected is not None:
            merged = {**version.rejected, **rejected}
            changes[records.REJECTED] = codec.write_rejected(merged)
        if not isinstance(marked_at, _Keep):
            changes[records.MARKED] = codec.write_time(marked_at) if marked_at else None
        if not isinstance(renewal_info, _Keep):
            changes[records.RENEWAL_INFO] = (
                codec.write_renewal_info(renewal_info) if renewal_info else None
            )
        if not isinstance(renew_asked, _Keep):
            changes[records.RENEW_ASKED] = codec.write_time(renew_asked) if renew_asked else None
        if not isinstance(revoked, _Keep):
            changes[records.REVOKED] = codec.write_revocation(revoked) if revoked else None
        return self._version(
            self._secrets.merge(version.ref, version.resource_version, {}, annotations=changes)
        )

    def delete_version(self, version: SecretVersion) -> None:
        """Delete it if it still is exactly as *version* says; gone is fine too. One request."""
        with contextlib.suppress(ObjectGone):
            self._secrets.guarded(
                version.ref,
                lambda: self._api.delete(
                    Kind.SECRET, version.ref, version.uid, version.resource_version
                ),
            )
        self._known.pop(version.ref, None)
        self.cache.forget(version.ref, version.uid)

    # --- Journals ----------------------------------------------------------------------

    def save_journal(
        self,
        certificate: str,
        journal: Journal,
        *,
        key: PrivateKey | None = None,
        csr: str | None = None,
        keep_key: bool = False,
    ) -> Journal:
        """
        Write a Journal, and the key and CSR of its pending order with it. One request.

        Created where *journal* has no resourceVersion, else changed if it still
        is at that version: Conflict otherwise. *keep_key* leaves key and CSR
        in the Secret as they are; without it and without *key* they are removed.
        ValueError for a pending order whose key is not given or another one.
        PermanentError where an unreadable Journal with a key is in the way.
        A Journal that was deleted comes back with its key where that is to be kept.
        """
        _check_key(journal, key, keep_key)
        ref = ObjectRef(self._namespace, records.journal_name(certificate, self._instance))
        data: dict[str, str | None] = {records.JOURNAL: codec.write_journal(journal)}
        if not keep_key:
            data[records.TLS_KEY] = key.pem if key is not None else None
            data[records.CSR] = csr
        base = journal.resource_version
        there, known = self.cache.get(ref), self._journal(certificate)
        if not base and isinstance(there, JournalRecord) and there.problem is not None:
            if there.key is not None:
                raise PermanentError(there.problem)
            base = there.resource_version
        if keep_key and not journal.resource_version and known is not None and known.key:
            data[records.TLS_KEY], data[records.CSR] = known.key.decode("ascii"), known.csr
        if base:
            answer = self._secrets.merge(ref, base, data)
        else:
            answer = self._secrets.create(
                ref, records.labels(records.JOURNAL, self._instance, certificate), data
            )
        return replace(journal, resource_version=version_of(answer))

    def put_back_journal(self, certificate: str) -> Journal:
        """Write a Journal that is lost as it was, with the key of its order. One request."""
        journal = self.journal(certificate)
        if journal is None:
            raise Conflict(f"the Journal of {certificate} is not known any more")
        if journal.resource_version:
            return journal
        return self.save_journal(certificate, journal, keep_key=True)

    # --- inside ------------------------------------------------------------------------

    def _project(self, obj: Obj, before: Record | None) -> Record | None:
        record = records.project(obj, before, self._instance)
        if isinstance(record, VersionRecord):
            self._known[record.version.ref] = record
        if isinstance(record, JournalRecord) and record.journal is not None:
            self._journals[record.certificate] = record
        return record

    def _version(self, obj: Obj) -> SecretVersion:
        record = self._project(obj, self.cache.get(ref_of(obj)))
        if not isinstance(record, VersionRecord):
            raise PermanentError(f"Secret {ref_of(obj)}: somebody took its labels away")
        return record.version

    def _version_entry(self, ref: ObjectRef, entry: str) -> bytes | None:
        try:
            obj = self._api.read(Kind.SECRET, ref)
        except ObjectGone:
            return None
        ours = isinstance(self._project(obj, self.cache.get(ref)), VersionRecord)
        return records.decode(obj, entry) if ours else None

    def _journal(self, certificate: str) -> JournalRecord | None:
        name = records.journal_name(certificate, self._instance)
        record = self.cache.get(ObjectRef(self._namespace, name))
        if isinstance(record, JournalRecord) and (record.journal or record.key):
            return record
        known = self._journals.get(certificate)
        return unwritten(known) if known is not None else None


def _same_version(there: Obj, wanted: Obj) -> bool:
    """Say whether *there* is the very version that *wanted* was to become."""
    found = (there.get("metadata") or {}).get("labels") or {}
    return (
        there.get("data") == wanted["data"]
        and there.get("immutable") is True
        and all(found.get(key) == value for key, value in wanted["metadata"]["labels"].items())
    )


def _check_key(journal: Journal, key: PrivateKey | None, keep_key: bool) -> None:
    if journal.pending is None or keep_key:
        return
    if key is None:
        raise ValueError("a pending order without its key: it would be lost")
    if key.public_key_sha256 != journal.pending.public_key_sha256:
        raise ValueError("the key is not that of the pending order")
