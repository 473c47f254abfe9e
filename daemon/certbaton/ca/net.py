"""
HTTP to a CA: signed POSTs, nonces, and requests that end (RFC 8555 section 6).

``acme``'s ClientNetwork with what it lacks: a refusal keeps its status and
headers, a nonce handed out with a badNonce is used, old nonces are dropped,
and a request has a deadline as a whole (``transport``) and its turn
(``traffic``). What an answer means is decided in ``problems``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlencode

import requests
import urllib3
from acme import client, errors, jws
from josepy.jwa import ES256, ES384, ES512, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA
from requests.adapters import BaseAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema, ProxyError
from requests.utils import get_environ_proxies

from certbaton import failpoints
from certbaton.ca.problems import Problem, one_line, read_problem
from certbaton.ca.traffic import TRAFFIC, Traffic
from certbaton.ca.transport import MAX_ANSWER, Adapter
from certbaton.errors import CaUnavailable, CertbatonError, ConfigurationError, Stopping
from certbaton.pki import PrivateKey

# RFC 8555 section 6.1 wants the library's name beside ours, and the language of error messages.
USER_AGENT: Final = f"certbaton/{version('certbaton')} requests/{requests.__version__}"
LANGUAGE: Final = "en"
# At a CA that refuses every second nonce, one request in a million fails for it.
NONCE_TRIES: Final = 20
NONCE_IDLE: Final = 300.0
# What lies between may have forgotten a connection, and then says nothing for the whole timeout.
CONNECTION_IDLE: Final = 60.0
_MAX_REDIRECTS: Final = 3
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]+")
BAD_PROXY: Final = (
    "the proxy that HTTPS_PROXY (or HTTP_PROXY, ALL_PROXY) names cannot be used; set it to "
    "http://HOST:PORT, or take it away"
)
BAD_ISSUER_PROXY: Final = (
    "the proxy that the issuer names cannot be used; set it to http://HOST:PORT, or take it away"
)

# At DEBUG it prints every signed request and every certificate.
logging.getLogger("acme.client").setLevel(logging.INFO)


class Refused(Exception):
    """
    The CA answered, and not with success: a fact on its way to the table, not yet an error.

    *request* is what it refused, where that is not what was to be asked: a nonce comes before it.
    """

    def __init__(self, problem: Problem, request: str = "") -> None:
        super().__init__(str(problem))
        self.problem, self.request = problem, request


class Net(client.ClientNetwork):
    """
    One thread's line to one CA; not to be shared between threads.

    *ca_bundle* is a file of PEM roots in place of the system's. *timeout* bounds each request
    from its start to the last byte of its answer, however slowly that trickles; of it, connecting
    to the addresses of the host has *connect_timeout*. Looking the host up is the resolver's.
    *proxy* is a URL, in place of what HTTPS_PROXY and NO_PROXY say, which are obeyed without it.
    *account_url* is the ``kid`` of what is signed (section 6.2); without it the key is sent.
    A *secure* line asks nothing without TLS, whatever the CA's answers lead to.
    """

    def __init__(
        self,
        key: PrivateKey,
        account_url: str | None,
        *,
        ca_bundle: str | None = None,
        timeout: timedelta = timedelta(seconds=30),
        connect_timeout: timedelta = timedelta(seconds=10),
        proxy: str | None = None,
        traffic: Traffic = TRAFFIC,
        secure: bool = False,
    ) -> None:
        self.jwk, algorithm = jwk_and_algorithm(key)
        super().__init__(
            key=self.jwk,
            alg=algorithm,
            verify_ssl=ca_bundle or True,  # type: ignore[arg-type]  # requests takes a path too
            user_agent=USER_AGENT,
        )
        self.account_url = account_url
        self._another = functools.partial(
            Net,
            account_url=None,
            ca_bundle=ca_bundle,
            timeout=timeout,
            connect_timeout=connect_timeout,
            proxy=proxy,
            traffic=traffic,
            secure=secure,
        )
        self._total = timeout.total_seconds()
        self._connect = min(connect_timeout.total_seconds(), self._total)
        self._proxies = {"http": proxy, "https": proxy} if proxy else None
        self._traffic = traffic
        self._nonce_at = self._used_at = 0.0
        self.session.max_redirects = _MAX_REDIRECTS
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, Adapter(exempting=proxy is None))
        if secure:
            self.session.mount("http://", _Insecure())

    def with_key(self, key: PrivateKey) -> Net:
        """Another line to the same CA, which signs with *key* and has no account."""
        return self._another(key)

    def fetch(self, what: str, url: str) -> requests.Response:
        """Unsigned GET of *url*; Refused, CaUnavailable or ConfigurationError."""
        return self._check_response(self._send_request("GET", url, what=what))

    def form(self, what: str, url: str, fields: Mapping[str, str]) -> requests.Response:
        """Unsigned POST of *fields* as a form, to what is not ACME; fails as ``fetch`` does."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = self._send_request(
            "POST", url, what=what, data=urlencode(fields), headers=headers, again=False
        )
        return self._check_response(response)

    def signed(
        self,
        what: str,
        url: str,
        payload: Mapping[str, object] | None,
        new_nonce_url: str,
        *,
        with_key: bool = False,
    ) -> requests.Response:
        """
        POST *payload* as a JWS; None is a POST-as-GET (section 6.3), ``{}`` is a body.

        *what* is the request's name in ``problems``. *with_key* sends the public key in place
        of the account URL, as newAccount needs. A badNonce is tried again with the nonce that
        came with it (section 6.5). Everything but a POST-as-GET is a write, and a fail point:
        a read can be lost at no cost, and how many of them a poll makes is chance. A write whose
        answer is lost is never sent again here: whether it was done, the CA is asked. Refused,
        CaUnavailable or ConfigurationError.
        """
        with failpoints.write(f"acme {what}") if payload is not None else contextlib.nullcontext():
            for attempt in range(1, NONCE_TRIES + 1):
                try:
                    return self._signed_once(what, url, payload, new_nonce_url, with_key)
                except Refused as refused:
                    if refused.problem.type != "badNonce" or attempt == NONCE_TRIES:
                        raise
        raise AssertionError("the last try returns or raises")

    def _signed_once(
        self,
        what: str,
        url: str,
        payload: Mapping[str, object] | None,
        new_nonce_url: str,
        with_key: bool,
    ) -> requests.Response:
        nonce: Any = self._get_nonce(url, new_nonce_url)
        body = b"" if payload is None else json.dumps(payload).encode()
        kid = None if with_key else self.account_url
        data = jws.JWS.sign(body, self.jwk, self.alg, nonce, url, kid).json_dumps()
        headers = {"Content-Type": self.JOSE_CONTENT_TYPE}
        response = self._send_request(
            "POST",
            url,
            what=what,
            data=data,
            headers=headers,
            again=payload is None or what == "findAccount",
        )
        self._nonces.clear()
        # An answer without a nonce is an answer all the same; the next request fetches one.
        with contextlib.suppress(errors.NonceError):
            self._add_nonce(response)
        return self._check_response(response)

    def _get_nonce(self, url: str, new_nonce_url: str) -> Any:
        if time.monotonic() - self._nonce_at > NONCE_IDLE:
            self._nonces.clear()
        if not self._nonces:
            response = self._send_request("HEAD", new_nonce_url, what="newNonce")
            try:
                self._add_nonce(self._check_response(response))
            except Refused as refused:  # nothing was said of what it was for
                raise Refused(refused.problem, "newNonce") from None
            except errors.NonceError as error:
                raise CaUnavailable(f"the CA sent no nonce from {new_nonce_url}") from error
        return self._nonces.pop()

    def _add_nonce(self, response: requests.Response) -> None:
        # Section 6.5.1; the library would send what is left of an invalid one.
        if not _NONCE.fullmatch(response.headers.get(self.REPLAY_NONCE_HEADER, "")):
            raise errors.MissingNonce(response)
        super()._add_nonce(response)
        self._nonce_at = time.monotonic()

    @classmethod
    def _check_response(
        cls, response: requests.Response, content_type: str | None = None
    ) -> requests.Response:
        # A POST is never redirected, so that a 3xx is no success either.
        if response.status_code < 300:
            return response
        problem = read_problem(
            response.status_code, response.headers, response.content, datetime.now(UTC)
        )
        raise Refused(problem)

    def _send_request(
        self,
        method: str,
        url: str,
        *,
        what: str,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
    ) -> requests.Response:
        """
        Send one request, and read its answer in full.

        A server ends connections that rest, sometimes just when one is used. Then the request is
        sent once more, on a connection of its own, if it may be sent *again*.
        """
        if time.monotonic() - self._used_at > CONNECTION_IDLE:
            for adapter in self.session.adapters.values():
                adapter.close()
        host = _host(url)
        with self._traffic.request(what, host, self._total) as running:
            try:
                response = self._ask(method, url, data, headers)
                # a body that ends with its connection may be cut short by that
                if not running.abandoned:
                    return response
                raise requests.ConnectionError
            except (InvalidURL, InvalidSchema, MissingSchema) as error:
                if _askable(url):
                    # not chained: a proxy's address may hold a password
                    raise self._bad_proxy(what, url) from None
                kind = ConfigurationError if what == "directory" else CaUnavailable
                raise kind(f"{what}: not a URL that can be asked: {one_line(url)!r}") from error
            except requests.RequestException as error:
                if running.abandoned:
                    words = f"{what} to {host} was abandoned: the process is ending"
                    raise Stopping(words) from None
                rested = not running.connected and not running.heard
                if not (again and rested and _is_cut(error)):
                    via = " through its proxy" if isinstance(error, ProxyError) else ""
                    words = f"no answer to {what} from {host}{via}: {_why(error)}"
                    raise CaUnavailable(words) from error
            except OSError as error:  # requests' own word for a CA bundle that it cannot read
                raise ConfigurationError(str(error), where=f"CA bundle for {host}") from error
            except (TypeError, ValueError):  # a proxy with credentials and without a host, ...
                raise self._bad_proxy(what, url) from None
        return self._send_request(method, url, what=what, data=data, headers=headers, again=False)

    def _ask(
        self, method: str, url: str, data: str | None, headers: Mapping[str, str] | None
    ) -> requests.Response:
        with self.session.request(
            method,
            url,
            data=data,
            headers={
                "User-Agent": self.user_agent,
                "Accept-Language": LANGUAGE,
                **(headers or {}),
            },
            verify=self.verify_ssl,
            timeout=(self._connect, self._total),
            allow_redirects=method == "GET",
            stream=True,
            proxies=self._proxies,
        ) as response:
            # requests has no way of its own to read no more than so much.
            response._content = _read(response)
            self._used_at = time.monotonic()
            return response

    def _bad_proxy(self, what: str, url: str) -> CaUnavailable:
        if self._proxies:
            return CaUnavailable(f"{what}: {BAD_ISSUER_PROXY}")
        if get_environ_proxies(url).keys() - {"no"}:
            return CaUnavailable(f"{what}: {BAD_PROXY}")
        # not the URL: it may hold a password as well
        words = f"{what}: not a URL that can be asked, nor one that leads to such, at {_host(url)}"
        return CaUnavailable(words)


class _Insecure(BaseAdapter):
    """What a CA under TLS may lead to, by a URL or a redirect, but not have (section 6.1)."""

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        raise requests.RequestException(f"it leads to {request.url}, which is without TLS")

    def close(self) -> None:
        pass


def _read(response: requests.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(64 * 1024):
        content += chunk
        if len(content) > MAX_ANSWER:
            raise requests.exceptions.ContentDecodingError(f"more than {MAX_ANSWER} bytes")
    return bytes(content)


def _is_cut(error: requests.RequestException) -> bool:
    return isinstance(error, requests.ConnectionError) and not isinstance(error, requests.Timeout)


def jwk_of(key: PrivateKey) -> JWK:
    """*key* as a JSON Web Key (RFC 7517)."""
    return jwk_and_algorithm(key)[0]


def jwk_and_algorithm(key: PrivateKey) -> tuple[JWK, JWASignature]:
    """*key* as a JSON Web Key, and what it signs with (RFC 7518)."""
    if not key.type.startswith("RSA"):
        algorithms = {"P-256": ES256, "P-384": ES384, "P-521": ES512}
        return JWKEC(key=key.unwrapped), algorithms[key.type]
    return JWKRSA(key=key.unwrapped), RS256


def _askable(url: str) -> bool:
    try:
        parsed = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _host(url: str) -> str:
    # with the port, where one is named, and without credentials
    try:
        return urllib3.util.parse_url(url).netloc or url
    except urllib3.exceptions.LocationParseError:  # asking it fails, in words
        return url


def _why(error: BaseException) -> str:
    """The innermost reason: what the system said, without the layers' own words around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        if isinstance(inner, Refused | CertbatonError):
            break  # an earlier request's, which somebody is handling
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
