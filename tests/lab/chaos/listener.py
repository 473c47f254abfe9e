"""A load balancer's listener put out of action for a while."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from lab.oci.loadbalancer import LoadBalancer

PORT = 443


@contextlib.contextmanager
def interrupted(balancer: LoadBalancer) -> Iterator[None]:
    """
    Let port 443 refuse connections for the length of the block.

    Unless the controller has put a listener there meanwhile, the old one comes back.
    """
    listener = balancer.listeners.get(PORT)
    if listener is None:
        yield
        return
    balancer.remove_listener(PORT)
    try:
        yield
    finally:
        if PORT not in balancer.listeners:
            balancer.put_listener(listener)


@contextlib.contextmanager
def stuck(balancer: LoadBalancer) -> Iterator[None]:
    """Let port 443 accept connections and say nothing; a few seconds at most."""
    with interrupted(balancer), contextlib.ExitStack() as stack:
        for number in range(len(balancer.addresses)):
            silent = stack.enter_context(socket.socket())
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # the controller was quicker
                silent.bind(balancer.endpoint(PORT, number))
                silent.listen(16)
        yield
