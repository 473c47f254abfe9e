"""
The API server over the network; how to get there is in ``connecting``.

The dynamic client with hand-made resources: no discovery (23 requests and a
cache file otherwise), none of the generated models (20 MB). Its objects are not
used either; everything here is plain dictionaries.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote

import urllib3
from kubernetes import config
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient, Resource

from certbaton import failpoints
from certbaton.cluster import connecting
from certbaton.cluster.answers import Answer, Asked, error_for
from certbaton.cluster.clock import ServerClock
from certbaton.cluster.contract import Kind, Obj, Page
from certbaton.errors import CertbatonError, ClusterUnavailable
from certbaton.model import ObjectRef

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
PAGE = 500
MERGE_PATCH = "application/merge-patch+json"

# A write is never repeated here: whether it was carried out is for the next look to say. An
# answer with a Retry-After is an answer: urllib3 would make an unreachable server of it.
_RETRIES = urllib3.Retry(
    total=2,
    connect=1,
    read=1,
    redirect=0,
    status=0,
    other=0,
    allowed_methods={"GET"},
    respect_retry_after_header=False,
)

# Errors whose text speaks of addresses and handshakes only.
_QUOTABLE = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.TimeoutError,
    config.ConfigException,
)

_dynamic_client: Any = DynamicClient
_resource: Any = Resource


class _NoDiscovery:
    """Stands where the dynamic client would look for resources on the server."""

    def __init__(self, client: object, cache_file: object) -> None:
        pass


class Api:
    """`KubeApi` on a real API server. Safe to share between threads."""

    def __init__(self, configuration: Configuration, user_agent: str = "certbaton") -> None:
        configuration.retries = _RETRIES
        configuration.keep_alive = True  # a watch may be silent for minutes
        self._client: Any = ApiClient(configuration)
        self._client.user_agent = user_agent
        self._timeouts = (CONNECT_TIMEOUT, READ_TIMEOUT)
        self._clock = ServerClock()
        self._dynamic = _dynamic_client(self._client, discoverer=_NoDiscovery)
        self._resources: dict[Kind, Any] = {
            kind: _resource(
                prefix="apis" if kind.group else "api",
                group=kind.group or None,
                api_version=kind.version,
                kind=kind.kind,
                name=kind.plural,
                namespaced=True,
                client=self._dynamic,
            )
            for kind in Kind
        }

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        user_agent: str = "certbaton",
    ) -> Self:
        """
        Use *kubeconfig* if given, else the pod's ServiceAccount. Sends no request.

        *user_agent* is also the field manager of all writes but `apply`.

        Raises ConfigurationError. The ServiceAccount's token file is read again
        every minute, as bound tokens are replaced while the pod runs.
        """
        return cls(connecting.load(kubeconfig, context), user_agent)

    def within(self, seconds: float) -> Self:
        """The same connections, on which no answer but a watch's is awaited for longer."""
        other = copy.copy(self)
        other._timeouts = (min(seconds, CONNECT_TIMEOUT), min(seconds, READ_TIMEOUT))
        return other

    def clock_apart(self) -> timedelta | None:
        """How far the server's clock is ahead of ours; None before its first answer."""
        return self._clock.apart()

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()

    def read(self, kind: Kind, ref: ObjectRef) -> Obj:
        """One object, as it is now. One request."""
        return self._object(Asked("read", kind, ref.namespace, ref.name), "get")

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Page:
        """All objects and the list's resourceVersion; a request for each 500."""
        items: list[Obj] = []
        version = ""
        for page, version in self.pages(  # noqa: B007  the last one counts
            kind, namespace, label_selector=label_selector, field_selector=field_selector
        ):
            items += page
        return items, version

    def pages(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Iterator[Page]:
        """As `list`, page by page; Expired where reading them took longer than five minutes."""
        asked = Asked("list", kind, namespace)
        token: str | None = None
        while True:
            answer = self._object(
                asked,
                "get",
                label_selector=label_selector,
                field_selector=field_selector,
                limit=PAGE,
                _continue=token,
            )
            metadata = answer.get("metadata") or {}
            yield answer.get("items") or [], str(metadata.get("resourceVersion") or "")
            token = metadata.get("continue")
            if not token:
                return

    def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        """Make a new object; AlreadyExists where its name is taken."""
        name = str((body.get("metadata") or {}).get("name") or "")
        return self._write(Asked("create", kind, namespace, name), "create", body)

    def replace(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """Put a whole object; with a resourceVersion in its metadata, Conflict if it changed."""
        return self._write(Asked("replace", kind, ref.namespace, ref.name), "replace", body)

    def merge(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """JSON merge patch (RFC 7386); a resourceVersion in *body* as in `replace`."""
        asked = Asked("merge", kind, ref.namespace, ref.name)
        return self._write(asked, "patch", body, content_type=MERGE_PATCH)

    def apply(self, kind: Kind, ref: ObjectRef, body: Obj, field_manager: str) -> Obj:
        """Server-side apply, forced."""
        asked = Asked("apply", kind, ref.namespace, ref.name)
        return self._write(
            asked, "server_side_apply", body, field_manager=field_manager, force_conflicts=True
        )

    def delete(self, kind: Kind, ref: ObjectRef, uid: str, resource_version: str) -> None:
        """Delete exactly this state of this object; Conflict if it is another one by now."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        self._write(Asked("delete", kind, ref.namespace, ref.name), "delete", options)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: int,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Watch:
        """What happens after *resource_version*, bookmarks among it. Open when this returns."""
        asked = Asked("watch", kind, namespace)
        response = self._send(
            asked,
            "get",
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            timeout_seconds=timeout_seconds,
            allow_watch_bookmarks=True,
            watch=True,
            # Keepalive finds a dead peer sooner; this one finds a server that forgot us.
            _request_timeout=(CONNECT_TIMEOUT, timeout_seconds + READ_TIMEOUT),
        )
        return Watch(asked, response)

    def _write(self, asked: Asked, method: str, body: Obj, **query: Any) -> Obj:
        if asked.kind is Kind.LEASE:  # by the clock, so not one of those that are counted
            return self._object(asked, method, body=body, **query)
        with failpoints.write(f"cluster {asked.verb} {asked.kind}"):
            return self._object(asked, method, body=body, **query)

    def _object(self, asked: Asked, method: str, **query: Any) -> Obj:
        query.setdefault("_request_timeout", self._timeouts)
        response = self._send(asked, method, **query)
        with _reaching(asked):
            data = response.data
        answer: Obj = _json(asked, data)
        return answer

    def _send(self, asked: Asked, method: str, **query: Any) -> urllib3.HTTPResponse:
        refusal: CertbatonError
        try:
            with _reaching(asked):
                response: urllib3.HTTPResponse = getattr(self._dynamic, method)(
                    self._resources[asked.kind],
                    **_names(asked, method),
                    serialize=False,
                    query_params=[],
                    **query,
                )
                self._clock.heard(response.headers.get("Date"))
                return response
        except ApiException as error:
            self._clock.heard((error.headers or {}).get("Date"))
            refusal = _refusal(asked, error)
        # Outside the handler: the client's exception quotes the body of the answer, which must
        # not travel along as the context of ours.
        raise refusal


class Watch:
    """An open watch on a real API server; see `WatchStream`."""

    def __init__(self, asked: Asked, response: urllib3.HTTPResponse) -> None:
        self._asked = asked
        self._response = response
        self._chunks = response.stream(65536)
        self._lines: list[bytes] = []
        self._rest = b""
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._reading = False
        self._done = False

    def __iter__(self) -> Iterator[tuple[str, Obj]]:
        return self

    def __next__(self) -> tuple[str, Obj]:
        line = self._next_line()
        if line is None:
            self._finish()
            raise StopIteration
        event = _json(self._asked, line)
        if event["type"] == "ERROR":
            self._finish()
            status = event["object"]
            code = int(status.get("code") or 500)
            raise error_for(self._asked, Answer.of(code, status), datetime.now(UTC))
        return event["type"], event["object"]

    def close(self) -> None:
        """Wake whoever waits for the next event; no further one is handed out."""
        self._closing.set()
        with self._lock:
            reading = self._reading
            if reading:
                # Only woken: a connection cannot be closed while another thread reads from it.
                with contextlib.suppress(OSError, ValueError, RuntimeError):
                    self._response.shutdown()
        if not reading:
            self._finish()

    def _next_line(self) -> bytes | None:
        while not self._lines:
            try:
                chunk = self._next_chunk()
            except ClusterUnavailable:
                self._finish()
                if self._closing.is_set():
                    return None
                raise
            if chunk is None:
                return None
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._lines = [line for line in reversed(lines) if line]
        return None if self._closing.is_set() else self._lines.pop()

    def _next_chunk(self) -> bytes | None:
        with self._lock:
            if self._done or self._closing.is_set():
                return None
            self._reading = True
        try:
            with _reaching(self._asked):
                return next(self._chunks, None)
        finally:
            with self._lock:
                self._reading = False

    def _finish(self) -> None:
        with self._lock:
            self._done = True
            self._response.close()


def _names(asked: Asked, method: str) -> dict[str, Any]:
    namespace = quote(asked.namespace, safe="") if asked.namespace else None
    if method == "create" or not asked.name:
        return {"namespace": namespace}
    return {"namespace": namespace, "name": quote(asked.name, safe="")}


@contextmanager
def _reaching(asked: Asked) -> Iterator[None]:
    """
    Turn what the network throws into ClusterUnavailable.

    Not chained: an error of the wire may quote what came over it.
    """
    try:
        yield
        return
    except (urllib3.exceptions.HTTPError, OSError, config.ConfigException) as error:
        reason = getattr(error, "reason", None) or error
        quotable = isinstance(reason, _QUOTABLE)
        words = f"{type(reason).__name__}: {reason}" if quotable else type(reason).__name__
    raise ClusterUnavailable(f"{asked}: the API server cannot be reached ({words})")


def _json(asked: Asked, data: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(data)
    # Not chained: a decoder's error carries the text that it could not read.
    raise ClusterUnavailable(f"{asked}: the API server's answer is not JSON")


def _refusal(asked: Asked, error: ApiException) -> CertbatonError:
    status = int(error.status or 0)
    if status == 0:
        return ClusterUnavailable(f"{asked}: no trusted connection to the API server")
    try:
        body = json.loads(error.body or "")
    except ValueError:
        body = None
    headers = error.headers or {}
    answer = Answer.of(status, body, headers.get("Retry-After"))
    return error_for(asked, answer, datetime.now(UTC))
