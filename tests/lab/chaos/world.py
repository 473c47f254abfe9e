"""The lab with a fault proxy before the API server and one before the CA."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from lab.certs import write_private
from lab.chaos.clock import Clock
from lab.chaos.proxy import ApiProxy, CaProxy, Proxy
from lab.world import Obj, World


def through(kubeconfig: Path, proxy: Proxy) -> Path:
    """The same kubeconfig, by way of *proxy*, beside it."""
    config = json.loads(kubeconfig.read_text())
    authority = base64.b64encode(proxy.ca_file.read_bytes()).decode()
    config["clusters"][0]["cluster"] |= {
        "server": proxy.url,
        "certificate-authority-data": authority,
    }
    file = kubeconfig.with_name(f"{kubeconfig.name}-{proxy.port}")
    return write_private(file, json.dumps(config, indent=1).encode())


class ChaosWorld(World):
    """
    A `World` whose daemon reaches its servers by way of `api` and `ca`, with `clock` as its.

    *seed* is for the proxies' dice.
    """

    def __init__(self, *, seed: int = 0, **more: Any) -> None:
        super().__init__(**more)
        self._seed = seed
        self._files: tuple[Path, Path] | None = None

    def _start(self) -> None:
        super()._start()
        self.clock = Clock(self.folder / "clock-offset")
        self.api = self._stack.enter_context(
            ApiProxy(self.folder, self.plane.url, self.plane.ca, seed=self._seed)
        )
        self.ca = self._stack.enter_context(
            CaProxy(self.folder, self.pebble.directory, self.pebble.ca_file, seed=self._seed)
        )
        # Once more, so that it ends while its servers are there.
        self._stack.callback(self.stop_daemon)

    def configuration(self, *certificates: Obj, **more: Any) -> Obj:
        """As always, with the CA by way of the proxy, and a Lease that is soon taken over."""
        lease = {"duration": "3s", "renewEvery": "1s"}
        config = super().configuration(*certificates, **{"lease": lease, **more})
        config["issuers"]["lab"] |= {
            "directory": self.ca.directory,
            "caBundle": str(self.ca.ca_file),
            "renewalInfo": False,
        }
        return config

    def install(self, config: Obj) -> None:
        """As always; what the daemon is started with is read anew."""
        super().install(config)
        self._files = None

    def daemon_files(self) -> tuple[Path, Path]:
        """As always, by way of the proxy; read once, so that it can start without its servers."""
        if self._files is None:
            config, kubeconfig = super().daemon_files()
            self._files = config, through(kubeconfig, self.api)
        return self._files

    def environ(self, **more: str) -> dict[str, str]:
        """As always, with the clock."""
        return super().environ(**self.clock.environ, **more)
