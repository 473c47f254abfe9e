"""All that happens to Services and Secrets, over restarts of the API server."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cryptography import x509

from chaos.history import LongHistory
from lab.kube import Kube
from lab.oci.tls import leaf_sha256
from lab.world import NAMESPACE
from soak.judge import Order, Version
from soak.site import OF, foreign

Obj = dict[str, Any]

CERTIFICATE = "certbaton.io/certificate"
SERVED = "certbaton.io/served"
REJECTED = "certbaton.io/rejected"
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


class Feed(LongHistory):
    """
    The history of a soak, which keeps count of versions.

    *stored* is called with each new version, on the thread that heard of it.
    """

    def __init__(self, kube: Kube, stored: Callable[[Version], None] = lambda v: None) -> None:
        super().__init__(kube, NAMESPACE)
        self.versions: dict[str, Version] = {}
        self.orders: dict[str, Order] = {}
        self.keys: set[str] = set()
        self.trouble: list[str] = []
        self._stored = stored
        self._theirs: dict[tuple[str, str], str] = {}
        self._contents: dict[str, str] = {}
        self._guard = threading.Lock()

    def _note(self, kind: str, event: str, obj: Obj, since: int | None = None) -> None:
        super()._note(kind, event, obj, since)
        with self._guard:
            if kind == "Secret":
                self._secret(event, obj)
            elif event != "DELETED":
                self._service(obj)

    def _service(self, service: Obj) -> None:
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        if key not in OF:
            return
        theirs = foreign(service)
        if self._theirs.setdefault(key, theirs) != theirs:
            self.trouble.append(f"what is others' on {'/'.join(key)} changed: {theirs}")
            self._theirs[key] = theirs

    def _secret(self, event: str, secret: Obj) -> None:
        name, now = secret["metadata"]["name"], time.time()
        if event == "DELETED":
            if name in self.versions:
                self.versions[name].deleted = now
            self._journal(name, {}, now)
            return
        data = {k: base64.b64decode(v) for k, v in (secret.get("data") or {}).items()}
        for value in data.values():
            text = value.decode(errors="replace").replace("\\n", "\n")
            for body in _PEM.findall(text):
                # A last line may be short enough to be met by chance.
                self.keys |= {line for line in body.split() if len(line) >= 32}
        if secret.get("type") != "kubernetes.io/tls":
            self._journal(name, json.loads(data.get("journal", b"{}")), now)
            return
        content = data["tls.crt"].decode()
        if self._contents.setdefault(name, content) != content:
            self.trouble.append(f"Secret {name} came back with other content")
        version = self.versions.get(name)
        fresh = version is None
        if version is None:
            version = self.versions[name] = _version(secret, data["tls.crt"], now)
        version.deleted = None
        notes = secret["metadata"].get("annotations") or {}
        version.noted = set(json.loads(notes.get(SERVED) or "{}"))
        for service, rejection in json.loads(notes.get(REJECTED) or "{}").items():
            at = datetime.fromisoformat(rejection["at"]).timestamp()
            version.rejected.setdefault(service, min(at, now))
        if fresh:
            self._stored(version)

    def _journal(self, name: str, journal: Obj, now: float) -> None:
        """Keep count of the orders that are open."""
        kind, _, rest = name.partition(".")
        if kind != "journal":
            return
        certificate = rest.partition(".")[0]
        url = (journal.get("pending") or {}).get("url") or ""
        order = url.rpartition("/")[2]
        for one, known in self.orders.items():
            if known.certificate == certificate and one != order:
                known.closed = min(known.closed, now)
        if order:
            self.orders.setdefault(order, Order(certificate, now))


def _version(secret: Obj, chain: bytes, now: float) -> Version:
    leaf = x509.load_pem_x509_certificate(chain)
    return Version(
        certificate=str((secret["metadata"].get("labels") or {}).get(CERTIFICATE)),
        name=secret["metadata"]["name"],
        leaf=leaf_sha256(chain),
        serial=leaf.serial_number,
        issued=leaf.not_valid_before_utc.timestamp(),
        expires=leaf.not_valid_after_utc.timestamp(),
        stored=now,
    )
