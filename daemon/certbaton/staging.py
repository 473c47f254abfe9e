"""
The first step of an order: its intent, in the Journal, before any CA is asked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from certbaton import pki
from certbaton.cluster.store import Store
from certbaton.errors import Conflict
from certbaton.model import Journal, PendingOrder, StageOrder


def stage(store: Store, action: StageOrder, now: datetime) -> None:
    """
    Write key and CSR into the Journal, and what the order is to carry.

    One request; one more where the cluster is listed first. Conflict where an order is open, the
    account is not as it was when this was planned, or a version is there that no watch told of.
    """
    spec = action.spec
    issuer = action.issuer or spec.issuer
    if action.list_first:
        known = {version.ref for version in store.versions(spec.name)}
        live = {version.ref for version in store.list_versions_live(spec.name)}
        if live - known:
            raise Conflict("the cluster holds versions that the watch has not delivered yet")
    account = store.account(issuer.directory)
    if account is None or account.url is None:
        raise Conflict("the account is gone")
    if account.rolling:
        raise Conflict("the account's key is being changed")
    key = _key_for(store, action)
    predecessor = action.predecessor
    pending = PendingOrder(
        directory=issuer.directory,
        account_url=account.url,
        names=spec.names,
        key_type=spec.key_type,
        public_key_sha256=key.public_key_sha256,
        reason=action.reason,
        staged_at=now,
        profile=issuer.profile,
        replaces=predecessor.leaf.ari_id if predecessor and predecessor.leaf else None,
        not_after=now + spec.lifetime if spec.lifetime is not None else None,
        advised=action.advised,
    )
    journal = store.journal(spec.name) or Journal()
    if journal.pending is not None:
        raise Conflict("an order is open already")
    store.save_journal(
        spec.name, replace(journal, pending=pending), key=key, csr=pki.make_csr(key, spec.names)
    )


def _key_for(store: Store, action: StageOrder) -> pki.PrivateKey:
    if action.reuse is not None:
        key = store.version_key(action.reuse.ref)
        if key is not None:
            return key
    return pki.PrivateKey.generate(action.spec.key_type)
