"""
How the API server is reached: a kubeconfig or the pod's ServiceAccount, and through which proxy.

A proxy that the kubeconfig names counts as it stands. Otherwise the environment decides
(``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY`` as `certbaton.noproxy` reads it),
as with ``kubectl``; what runs on this machine itself is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from kubernetes import config
from kubernetes.client.configuration import Configuration

from certbaton.errors import ConfigurationError
from certbaton.noproxy import exempts

_load_config: Any = config


def load(kubeconfig: str | None = None, context: str | None = None) -> Configuration:
    """
    Use *kubeconfig* if given, else the pod's ServiceAccount. Sends no request.

    ConfigurationError where neither can be used, or the proxy's address makes no sense.
    """
    configuration = Configuration(proxy="", no_proxy="")
    try:
        if kubeconfig is not None:
            _load_config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        else:
            _load_config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise ConfigurationError(
            f"cannot connect to a cluster: {error}; outside a pod give --kubeconfig, or set "
            "KUBECONFIG",
            where=kubeconfig or "in-cluster",
        ) from error
    if configuration.proxy:
        _check_proxy(configuration, configuration.proxy, f"proxy-url of {kubeconfig}")
    elif not _is_here(configuration.host):
        environment = Configuration(host=configuration.host)
        exempt = exempts(environment.no_proxy or "", configuration.host)
        configuration.proxy = None if exempt else environment.proxy
        configuration.no_proxy = environment.no_proxy
        if configuration.proxy:
            _check_proxy(
                configuration, configuration.proxy, "HTTPS_PROXY (or HTTP_PROXY, ALL_PROXY)"
            )
    return configuration


def _check_proxy(configuration: Configuration, url: str, where: str) -> None:
    """Refuse what is no proxy's address; one with a user and a password gets to see them."""
    try:
        proxy = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        proxy = None
    if proxy is None or proxy.scheme not in ("http", "https") or not proxy.host:
        # not shown: a proxy's address may hold a password
        raise ConfigurationError(
            "it names a proxy that cannot be used; write http://HOST:PORT", where=where
        )
    if proxy.auth:
        configuration.proxy_headers = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth))


def _is_here(host: str) -> bool:
    """Say whether the server's URL *host* is one of this very machine."""
    name = urlsplit(host).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
