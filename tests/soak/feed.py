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

from e2e.history import History
from lab.kube import Kube, KubeError
from lab.oci.tls import leaf_sha256
from lab.world import NAMESPACE
from soak.judge import Version
from soak.site import OF, foreign

Obj = dict[str, Any]

CERTIFICATE = "certbaton.io/certificate"
SERVED = "certbaton.io/served"
REJECTED = "certbaton.io/rejected"
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


class Feed(History):
    """
    `History` that goes on over whatever the API server does, and keeps count of versions.

    *stored* is called with each new version, on the thread that heard of it.
    """

    def __init__(self, kube: Kube, stored: Callable[[Version], None] = lambda v: None) -> None:
        super().__init__(kube, NAMESPACE)
        self.versions: dict[str, Version] = {}
        self.keys: set[str] = set()
        self.trouble: list[str] = []
        self._stored = stored
        self._theirs: dict[tuple[str, str], str] = {}
        self._contents: dict[str, str] = {}
        self._guard = threading.Lock()

    # --- following ------------------------------------------------------------------------

    def _follow(self, kind: str) -> None:
        watch = self._watches[kind]
        while not self._stopping.is_set():
            try:
                with watch:
                    for event in watch:
                        if event["type"] != "BOOKMARK":
                            self._note(kind, event["type"], event["object"])
            except KubeError as error:
                if error.status == 410:
                    self._again(kind)
            watch = self._open(kind) or watch

    def _open(self, kind: str) -> Any:
        while not self._stopping.wait(0.05):
            try:
                watch = self._kube.watch(
                    self._paths[kind], resource_version=str(self._at(kind)), timeout=600.0
                )
            except KubeError as error:
                if error.status == 410:
                    self._again(kind)
                continue
            self._watches[kind] = watch
            return watch
        return None

    def _at(self, kind: str) -> int:
        with self._changed:
            return max((version for version, _ in self._last[kind].values()), default=0)

    def _again(self, kind: str) -> None:
        """List anew; of what began in between only so much is known that it did."""
        try:
            listing = self._kube.list(self._paths[kind])
        except KubeError:
            self._stopping.wait(0.2)
            return
        before = self._at(kind)
        at = int(listing["metadata"]["resourceVersion"])
        there = set()
        for obj in listing["items"]:
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            there.add(key)
            seen, alive = self._last[kind].get(key, (0, False))
            if int(obj["metadata"]["resourceVersion"]) > seen:
                born = before + 1 if kind == "Secret" and not alive else None
                self._note(kind, "ADDED" if not alive else "MODIFIED", obj, since=born)
        for key, (_, alive) in list(self._last[kind].items()):
            if alive and key not in there:
                gone = {"namespace": key[0], "name": key[1], "resourceVersion": str(at)}
                self._note(kind, "DELETED", {"metadata": gone})

    # --- what it means ------------------------------------------------------------------------

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
            return
        data = {k: base64.b64decode(v) for k, v in (secret.get("data") or {}).items()}
        for value in data.values():
            text = value.decode(errors="replace").replace("\\n", "\n")
            for body in _PEM.findall(text):
                # A last line may be short enough to be met by chance.
                self.keys |= {line for line in body.split() if len(line) >= 32}
        if secret.get("type") != "kubernetes.io/tls":
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
            version.rejected.setdefault(service, at)
        if fresh:
            self._stored(version)


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
