"""What goes wrong between the daemon and its servers: proxies with faults, and a wrong clock."""

from lab.chaos.clock import Clock
from lab.chaos.faults import WireFault
from lab.chaos.proxy import ApiProxy, CaProxy, Proxy
from lab.chaos.world import ChaosWorld, through

__all__ = ["ApiProxy", "CaProxy", "ChaosWorld", "Clock", "Proxy", "WireFault", "through"]
