"""
A small REST client for the Kubernetes API, for tests and the lab's own components.

It speaks paths and plain dictionaries and knows no models. The daemon under test does not
use it: a fault in one must not be hidden by the same fault in the other.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from requests.auth import AuthBase

Obj = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class KubeError(Exception):
    """
    The API server refused, or could not be reached (then *status* is 0).

    *reason* is the machine-readable word of the Status object (NotFound, Conflict,
    AlreadyExists, Invalid, Forbidden, Expired), or "Unreachable".
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class _Bearer(AuthBase):
    """A token header that ~/.netrc cannot replace."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Watch(Iterator[Obj]):
    """
    Events of one watch: dictionaries with "type" and "object".

    Ends when the server ends it or after `close`, which any thread may call. An ERROR event is
    raised as a KubeError (410 Expired or Gone: list again).
    """

    def __init__(self, session: requests.Session, response: requests.Response) -> None:
        self._session = session
        self._response = response
        self._closed = threading.Event()
        self._done = False
        self._lines: Iterator[bytes] = response.iter_lines(chunk_size=None)

    def __next__(self) -> Obj:
        if self._done:
            raise StopIteration
        try:
            line = next((line for line in self._lines if line), None)
        except (requests.RequestException, OSError, ValueError, AttributeError) as error:
            self._finish()
            if self._closed.is_set():
                raise StopIteration from None
            raise KubeError(0, "Unreachable", str(error)) from error
        if line is None or self._closed.is_set():
            self._finish()
            raise StopIteration
        event: Obj = json.loads(line)
        if event["type"] == "ERROR":
            self._finish()
            status = event["object"]
            raise KubeError(
                int(status.get("code", 500)),
                str(status.get("reason", "Unknown")),
                str(status.get("message", "")),
            )
        return event

    def _finish(self) -> None:
        self._done = True
        self._response.close()
        self._session.close()

    def close(self) -> None:
        """End the watch: the thread that reads gets no further event."""
        if self._done or self._closed.is_set():
            return
        self._closed.set()
        # Only waking the reader here; it closes the connection itself, as a file object cannot
        # be closed while another thread is inside its read.
        shutdown = getattr(self._response.raw, "shutdown", None)
        if shutdown is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        # The one who leaves the block is the reader, so nothing is inside a read now.
        self._finish()


class Kube:
    """
    One user of an API server; safe to share between threads (each has its own connections).

    Paths are the API's own ("/api/v1/namespaces/a/services/b"); keyword arguments become the
    query ("labelSelector", "fieldManager", "dryRun", ...).
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca: Path,
        cert: tuple[Path, Path] | None = None,
        token: str | None = None,
        user_agent: str = "certbaton-lab",
        timeout: float = 30.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._ca = ca
        self._cert = cert
        self._token = token
        self._user_agent = user_agent
        self._timeout = timeout
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []

    def get(self, path: str, **query: Any) -> Obj:
        """One object."""
        return self._call("GET", path, query)

    def list(self, path: str, **query: Any) -> Obj:
        """One page of a list: a dictionary with "metadata" and "items"."""
        return self._call("GET", path, query)

    def create(self, path: str, body: Obj, **query: Any) -> Obj:
        """POST *body* to a collection, or to a subresource such as ".../token"."""
        return self._call("POST", path, query, body)

    def update(self, path: str, body: Obj, **query: Any) -> Obj:
        """PUT the whole object; a resourceVersion in it must still be the newest."""
        return self._call("PUT", path, query, body)

    def patch(
        self,
        path: str,
        body: Any,
        *,
        content_type: str = MERGE_PATCH,
        **query: Any,
    ) -> Obj:
        """PATCH; *body* is a list for a JSON patch."""
        return self._call("PATCH", path, query, body, content_type)

    def apply(self, path: str, body: Obj, *, manager: str, force: bool = True, **query: Any) -> Obj:
        """Server-side apply of *body* as field manager *manager*."""
        query |= {"fieldManager": manager, "force": force}
        return self._call("PATCH", path, query, body, APPLY_PATCH)

    def delete(self, path: str, body: Obj | None = None, **query: Any) -> Obj:
        """DELETE; *body* may hold DeleteOptions with preconditions."""
        return self._call("DELETE", path, query, body)

    def raw(self, path: str, **query: Any) -> str:
        """The text at a path that is not an object ("/readyz", "/metrics")."""
        return self._send("GET", path, query, None, "application/json").text

    def watch(
        self,
        path: str,
        *,
        resource_version: str,
        timeout: float = 300.0,
        **query: Any,
    ) -> Watch:
        """
        Events of a collection from *resource_version* on, for at most *timeout* seconds.

        Opened when this returns: what changes afterwards will be seen. With
        ``allowWatchBookmarks=True`` there are BOOKMARK events among them.
        """
        query |= {
            "watch": True,
            "resourceVersion": resource_version,
            "timeoutSeconds": max(1, int(timeout)),
        }
        session = self._new_session()
        try:
            response = self._exchange(
                session, "GET", path, query, None, "application/json", timeout + 30.0, stream=True
            )
        except BaseException:
            session.close()
            raise
        return Watch(session, response)

    def close(self) -> None:
        """Close every thread's connections; the client can be used again afterwards."""
        with self._lock:
            sessions, self._sessions = self._sessions, []
            self._local = threading.local()
        for session in sessions:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # Proxies and CA bundles of the environment have no say on the loopback.
        session.trust_env = False
        session.verify = str(self._ca)
        session.auth = _Bearer(self._token)
        if self._cert is not None:
            session.cert = (str(self._cert[0]), str(self._cert[1]))
        session.headers.update({"User-Agent": self._user_agent, "Accept": "application/json"})
        return session

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._new_session()
            with self._lock:
                self._local.session = session
                self._sessions.append(session)
        return session

    def _call(
        self,
        method: str,
        path: str,
        query: Obj,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Obj:
        answer: Obj = self._send(method, path, query, body, content_type).json()
        return answer

    def _send(
        self, method: str, path: str, query: Obj, body: Any, content_type: str
    ) -> requests.Response:
        return self._exchange(
            self._session(), method, path, query, body, content_type, self._timeout
        )

    def _exchange(
        self,
        session: requests.Session,
        method: str,
        path: str,
        query: Obj,
        body: Any,
        content_type: str,
        timeout: float,
        *,
        stream: bool = False,
    ) -> requests.Response:
        params = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in query.items()
            if value is not None
        }
        try:
            response = session.request(
                method,
                self.base_url + path,
                params=params,
                data=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": content_type},
                timeout=(10.0, timeout),
                stream=stream,
            )
        except requests.RequestException as error:
            raise KubeError(0, "Unreachable", str(error)) from error
        if response.status_code >= 400:
            raise _refusal(response)
        return response


def _refusal(response: requests.Response) -> KubeError:
    try:
        status = response.json()
    except (ValueError, requests.RequestException):
        status = {}
    if not isinstance(status, dict):
        status = {}
    text = status.get("message") or response.reason or ""
    error = KubeError(response.status_code, str(status.get("reason") or "Unknown"), str(text))
    response.close()
    return error
