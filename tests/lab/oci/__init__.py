"""
A simulated OCI cloud controller manager with its load balancers.

It behaves as the notes on Oracle's controller say ("What Oracle's cloud controller manager
does"), runs in threads of the test or demo, talks to a real API server and terminates TLS on
real loopback sockets. `CloudController` is the way in.
"""

from lab.oci.app import LabApp
from lab.oci.controller import CloudController
from lab.oci.faults import ApiFault, Faults
from lab.oci.loadbalancer import LoadBalancer
from lab.oci.ports import PortMap
from lab.oci.prober import Prober

__all__ = ["ApiFault", "CloudController", "Faults", "LabApp", "LoadBalancer", "PortMap", "Prober"]
