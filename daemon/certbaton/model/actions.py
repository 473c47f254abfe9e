"""What to do: the plan of one certificate, its actions and its waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from certbaton.model.journal import PendingOrder
from certbaton.model.spec import CertificateSpec, IssuerSpec, ObjectRef, Reason, ServiceSpec
from certbaton.model.world import SecretVersion


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all actions: one handler each in ``apply``, each one idempotent."""

    certificate: str
    why: str


@dataclass(frozen=True, slots=True)
class EnsureAccount(Action):
    """Key stored, then newAccount, then URL stored (RFC 8555 section 7.3)."""

    issuer: IssuerSpec


@dataclass(frozen=True, slots=True)
class StageOrder(Action):
    """
    Key and CSR into the Journal, before the CA is asked.

    *issuer* is the CA to ask, None: the first one of *spec*. *predecessor* is the version that
    the order is to replace (RFC 9773 section 5); *reuse* the one whose private key is to be taken
    again; *advised*: renewal information in the past asks for it.
    """

    spec: CertificateSpec
    reason: Reason
    list_first: bool
    issuer: IssuerSpec | None = None
    predecessor: SecretVersion | None = None
    reuse: SecretVersion | None = None
    advised: bool = False


@dataclass(frozen=True, slots=True)
class AdvanceOrder(Action):
    """Bring the pending order as far as it gets in one go."""

    spec: CertificateSpec | None
    pending: PendingOrder
    finish_only: bool = False


@dataclass(frozen=True, slots=True)
class DropOrder(Action):
    """
    Take an order that was never finalized out of the Journal, for another CA or specification.

    Its challenges are cleaned, its pending authorizations deactivated (section 7.5.2), as far as
    the CA answers.
    """

    pending: PendingOrder


@dataclass(frozen=True, slots=True)
class CheckRenewalInfo(Action):
    """Ask the CA that issued *version* when to renew it (RFC 9773 section 4)."""

    version: SecretVersion
    issuer: IssuerSpec


@dataclass(frozen=True, slots=True)
class Rehearse(Action):
    """
    Bring a trial order at *issuer* to the end of its validations; no certificate comes of it.

    *asked* is the time of the request that it answers, where somebody asked by hand. *ends*: the
    one that is open there is only taken back.
    """

    spec: CertificateSpec
    issuer: IssuerSpec
    asked: datetime | None = None
    ends: bool = False


@dataclass(frozen=True, slots=True)
class RollAccountKey(Action):
    """Bring the change of the account's key to its end (RFC 8555 section 7.3.5)."""

    issuer: IssuerSpec


@dataclass(frozen=True, slots=True)
class CloseOrder(Action):
    """Take the pending order out of the Journal; *version* is what it ended in."""

    pending: PendingOrder
    version: str | None


@dataclass(frozen=True, slots=True)
class Repoint(Action):
    """
    One server-side apply that makes a Service name *version*.

    Where that is None, *reference*: a Secret that is not ours, and that worked
    there before we came. *named* is what it named when this was planned.
    """

    service: ServiceSpec
    version: SecretVersion | None
    reference: ObjectRef
    named: ObjectRef | None


@dataclass(frozen=True, slots=True)
class GiveUp(Action):
    """Take the name of a Secret that is not there off a Service that gets no address for it."""

    service: ObjectRef
    reference: ObjectRef


@dataclass(frozen=True, slots=True)
class NoteService(Action):
    """
    Write into the Journal what a Service named before us, or that drift is undone again.

    *drift_rounds* 0: it was seen, and is not undone yet.
    """

    service: ObjectRef
    original: str | None = None
    drift_rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Reject(Action):
    """Note on the version that *service*, or `EVERYWHERE`, refuses it."""

    service: str
    version: SecretVersion


@dataclass(frozen=True, slots=True)
class PutBack(Action):
    """Create a version again that somebody deleted while it was named: same name, same content."""

    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class PutBackJournal(Action):
    """Write the Journal again that somebody deleted, as this process last saw it."""


@dataclass(frozen=True, slots=True)
class MarkServed(Action):
    """
    Note on the version that its handover at *service* has ended.

    *since* is when the Service was changed: the proof is never dated before it,
    whatever our clock says. *hint* is what would have given a better view.
    """

    service: ObjectRef
    version: SecretVersion
    how: str
    since: datetime | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class MarkForDeletion(Action):
    """First half of collecting."""

    version: SecretVersion


@dataclass(frozen=True, slots=True)
class Unmark(Action):
    """A marked version is named again, or is to be named."""

    version: SecretVersion


@dataclass(frozen=True, slots=True)
class DeleteVersion(Action):
    """Second half: all Services looked at live, then deleted with preconditions."""

    version: SecretVersion


class WaitKind(StrEnum):
    """What a wait is for: ``once`` follows the first kind only."""

    IN_FLIGHT = "in flight"
    LATER = "later"
    BACK_OFF = "back-off"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before *until* (aware, UTC); *what* is a sentence for a person."""

    what: str
    until: datetime
    kind: WaitKind


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What one certificate needs now.

    Actions are in order; *due* is since when a new version is wanted, and
    *notes* are sentences worth showing to somebody; *claimed* are those of them that
    tell of Services that another instance has.
    """

    certificate: str
    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()
    due: datetime | None = None
    claimed: Mapping[ObjectRef, str] = field(default_factory=dict)
