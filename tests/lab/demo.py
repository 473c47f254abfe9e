"""
``make demo``: certbaton at work on a real API server and a real CA, for somebody to watch.

Without options it goes on until Ctrl-C. With ``--renewals N`` it ends by itself: exit code 0 if
every rollover was seen on the wire, 1 with what is missing if not, 2 for a mistake in the
options, 130 if it was interrupted before.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lab.show import Screen, span, until

if TYPE_CHECKING:  # heavy; imported once Ctrl-C is answered
    from lab.timeline import Moment, Timeline
    from lab.world import World

CERTIFICATE = "shop"
DNS_NAME = "shop.example.test"
SERVICES = (("shop", "web"), ("cafe", "front"))
OBSERVED_POLL_S = 5.0
INTERRUPTION_S = 0.3
RENEW_SHARE = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo:
    """One run. *began* is when the command was given, as ``time.time`` has it."""

    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self.services = [f"{ns}/{name}" for ns, name in SERVICES[: options.services]]
        self.challenge: str = options.challenge
        self.poll_interval: float = options.poll_interval
        self.renewals: int | None = options.renewals
        self.json: Path | None = options.json
        self.keep: Path | None = options.keep
        self.screen = screen
        # Changing a listener takes two work requests, each seen done at a poll, and a sync
        # before: ten times that must fit in easily, and renewals still be worth watching.
        self.lifetime = max(60, round(30 * self.poll_interval * options.services))

    def run(self) -> int:
        """Everything from the first line to the exit code."""
        self._introduce()
        self._build()
        with ExitStack() as stack:
            world = self._world(stack)
            timeline = self._timeline(stack, world)
            lacks = self._watch(world, timeline)
            report = self._report(world, timeline)
        if self.json is not None:
            self.json.write_text(json.dumps(report, indent=2) + "\n")
        self._conclude(timeline, report, lacks)
        return 1 if lacks else 0

    # --- getting there -----------------------------------------------------------------------

    def _introduce(self) -> None:
        note = self.screen.note
        self.screen.heading("certbaton demo")
        note(
            "A certificate is obtained, put on a load balancer, renewed and handed over. Real: the "
            "Kubernetes API server, etcd, Helm, and Pebble (Let's Encrypt's own test CA), all on "
            "127.0.0.1. Simulated: Oracle's cloud controller and its load balancer, which "
            "terminates TLS on a loopback address. Nothing is installed on this machine."
        )
        if self.renewals is None:
            note("It goes on until you press Ctrl-C, which also takes everything down.")

    def _build(self) -> None:
        from lab import build

        servers = "knot" if self.challenge == "dns-01" else "pebble-challtestsrv"
        names = ["pebble", "etcd", "helm", "kube-apiserver"]
        if self.challenge == "http-01":
            names.insert(1, servers)
        lacking = [name for name in names if build.TOOLS[name].found() is None]
        if lacking:
            seconds = sum(build.TOOLS[name].seconds for name in lacking)
            self.screen.heading("Once: building the servers")
            self.screen.note(
                f"{', '.join(lacking)}: from pinned sources, about {span(seconds)} on two cores, "
                f"more if much has to be downloaded. Kept in {build.cache_dir()}; the next run "
                "starts at once."
            )
            build.ensure(*names)
        if self.challenge == "dns-01":
            build.debian("knot", "knotd")

    def _world(self, stack: ExitStack) -> World:
        from lab import build
        from lab.world import World

        screen = self.screen
        screen.heading("Starting")
        folder = self.keep or Path(_temporary_folder())
        world = stack.enter_context(
            World(
                lifetime=self.lifetime,
                poll_interval=self.poll_interval,
                interruption=INTERRUPTION_S,
                dns=self.challenge == "dns-01",
                folder=folder.resolve(),
                say=lambda text: screen.step(text),
            )
        )
        self.versions = {**world.plane.versions(), **world.pebble.versions()}
        if world.dns is not None:
            self.versions |= world.dns.versions()
        shown = {**self.versions, "helm": build.pinned_version("helm")}
        screen.step(", ".join(f"{name} {version}" for name, version in shown.items()))
        return world

    def _timeline(self, stack: ExitStack, world: World) -> Timeline:
        from lab.oci.prober import Prober
        from lab.timeline import Timeline

        screen = self.screen
        pairs = SERVICES[: len(self.services)]
        for namespace, name in pairs:
            world.add_service(namespace, name, wait=False)
        screen.step(
            f"{_and([f'Service {service}' for service in self.services])} made as people have it "
            "today: type LoadBalancer,"
        )
        screen.step("  port http 80 to 8080, no annotations")
        solver = "dns" if self.challenge == "dns-01" else "http"
        certificate = world.certificate(CERTIFICATE, [DNS_NAME], list(pairs), solver=solver)
        # keepPrevious 0: so that collecting each old Secret is seen, too.
        policy = {"pollListener": "250ms", "keepPrevious": 0}
        world.install(world.configuration(certificate, policy=policy))
        screen.step("chart installed by helm: certbaton's rights and its configuration")
        probers: dict[str, Prober] = {}
        for namespace, name in pairs:
            address = world.address_of(namespace, name)
            prober = Prober(address, world.ports(443), DNS_NAME)
            stack.callback(prober.close)
            probers[f"{namespace}/{name}"] = prober
            screen.step(
                f"{namespace}/{name} has its load balancer; a prober shakes hands with "
                f"{address}:{world.ports(443)}"
            )
            screen.step("  (which stands for port 443) ten times a second")
        world.set_a(DNS_NAME, world.address_of(*pairs[0]))
        timeline = stack.enter_context(
            Timeline(world, {CERTIFICATE: self.challenge}, probers, self._tell)
        )
        world.start_daemon()
        screen.step("certbaton run: started, with the token of the chart's ServiceAccount")
        self._explain()
        return timeline

    def _explain(self) -> None:
        note = self.screen.note
        self.screen.heading("Rollovers (seconds since the command)")
        note(
            f"Certificate {CERTIFICATE} for {DNS_NAME} by {self.challenge}, on "
            f"{_and(self.services)}. It lives {self.lifetime} s and is renewed at half of that; "
            "90 days would be renewed after 60."
        )
        note(
            f"The simulated controller polls every {self.poll_interval:g} s; Oracle's was observed "
            f"to poll every {OBSERVED_POLL_S:g} s. A listener under change is closed for "
            f"{1000 * INTERRUPTION_S:.0f} ms."
        )
        note(
            "An old Secret is kept for a tenth of the lifetime after the handover, then marked, "
            "looked at again, and deleted. keepPrevious is 0 here so that you see it; by default "
            "the one before is kept for going back."
        )
        note()

    # --- watching ----------------------------------------------------------------------------

    def _tell(self, moment: Moment) -> None:
        self.screen.moment(moment)
        rollover = moment.rollover
        if moment.kind.value == "served" and rollover and rollover.served_at:
            if rollover.from_secret is not None:
                took = (rollover.served_at - rollover.repointed_at).total_seconds()
                self.screen.step(
                    f"{rollover.service:<12} changing the listener took {took:.1f} s; the "
                    f"lifetime is {self.lifetime / max(took, 0.1):.0f} times that",
                    "dim",
                    moment.at,
                )
            last = rollover.service == self.services[-1]
            if last and self.renewals is None:
                leaf = rollover.version
                due = leaf.not_before + (leaf.not_after - leaf.not_before) * RENEW_SHARE
                self.screen.step(f"{CERTIFICATE:<12} next renewal in about {until(due)}", "dim")

    def _watch(self, world: World, timeline: Timeline) -> list[str]:
        """Follow until it has ended; what is missing then."""
        from lab.process import LabError

        count = None if self.renewals is None else self.renewals + 1
        change = 8 * self.poll_interval * len(self.services) + 10
        patience = 60 + (self.renewals or 0) * (self.lifetime * 0.6 + change) + 2 * change
        patience += self.lifetime * 0.3  # retention, and looking again
        end = time.monotonic() + patience
        while True:
            timeline.turn(0.2)
            if not world.daemon.running:
                raise LabError(
                    f"certbaton ended with exit code {world.daemon.exit_code}; its log ends:\n"
                    f"{world.daemon.log_tail()}"
                )
            if count is None:
                continue
            lacks = timeline.missing(self.services, count)
            if not lacks or time.monotonic() > end:
                return lacks

    def _report(self, world: World, timeline: Timeline) -> dict[str, Any]:
        services = [world.service(ns, name) for ns, name in SERVICES[: len(self.services)]]
        report = {
            "versions": self.versions,
            "rollovers": [rollover.as_json() for rollover in timeline.rollovers],
            "secrets": [secret["metadata"]["name"] for secret in world.secrets()],
            "services": services,
            "load_balancer_certificates": world.cloud.certificates(),
        }
        world.stop_daemon()
        report["daemon"] = {
            "peak_rss_mb": round(world.daemon.peak_rss_mb, 1),
            "cpu_s": round(world.daemon.cpu_s, 2),
        }
        return report

    def _conclude(self, timeline: Timeline, report: dict[str, Any], lacks: list[str]) -> None:
        screen = self.screen
        screen.heading("What was seen")
        screen.table(
            ("Service", "Secret", "due to served", "interruption", "API requests", "CA requests"),
            [
                (
                    rollover.service,
                    rollover.version.name,
                    f"{rollover.due_to_served_s or 0:.1f} s" if rollover.served_at else "never",
                    f"{rollover.interruption_ms or 0:.0f} ms",
                    str(sum(rollover.api_requests.values())),
                    str(rollover.version.acme_requests or "?"),
                )
                for rollover in timeline.rollovers
            ],
        )
        screen.note(
            f"certbaton used at most {report['daemon']['peak_rss_mb']} MB of memory and "
            f"{report['daemon']['cpu_s']} s of CPU. The load balancer holds "
            f"{len(report['load_balancer_certificates'])} certificates: it never deletes one. "
            "The first interruption is 0: there was no listener yet.",
            indent=2,
        )
        if self.json is not None:
            screen.note(f"All of it, and the Services: {self.json}", indent=2)
        if lacks:
            screen.note()
            screen.note("Not everything was seen:", "red")
            for lack in lacks:
                screen.note(f"- {lack}", "red", indent=2)
            if self.keep is None:
                screen.note("--keep DIR keeps the logs.", indent=2)
        else:
            screen.note("Every rollover was seen on the wire.", "green", indent=2)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; SystemExit 2 for a mistake in them."""
    parser = argparse.ArgumentParser(
        prog="make demo", usage='make demo ARGS="[options]"',
        description=(__doc__ or "").replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--renewals", type=int, metavar="N", help="end after N renewals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there")
    parser.add_argument("--challenge", choices=("http-01", "dns-01"), default="http-01")
    parser.add_argument(
        "--poll-interval", type=float, default=1.0, metavar="SECONDS",
        help="of the cloud controller; 5 as observed, 1 by default",
    )  # fmt: skip
    parser.add_argument(
        "--services", type=int, choices=(1, 2), default=1,
        help="2: two Services in two namespaces share the certificate",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and keys there")
    options = parser.parse_args(argv)
    if options.renewals is not None and options.renewals < 0:
        parser.error("--renewals: at least 0")
    if options.json is not None and options.renewals is None:
        parser.error("--json needs --renewals N: without it there is no end")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if not 0.1 <= options.poll_interval <= 60:
        parser.error("--poll-interval: from 0.1 to 60")
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep: {options.keep} is not empty")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; gives the exit code."""
    began = _process_began()
    options = parse(argv)
    for number in _SIGNALS:
        signal.signal(number, _interrupted)
    screen = Screen(sys.stdout, began)
    try:
        return Demo(options, screen).run()
    except KeyboardInterrupt:
        screen.note("Everything is stopped and cleaned up.")
        return 0 if options.renewals is None else 130
    except Exception as error:
        from lab.process import LabError

        if not isinstance(error, LabError):
            raise
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Once is enough: a second one must not cut the cleaning short.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    # print() is not allowed to be entered twice, and this may come in the middle of one.
    os.write(sys.stdout.fileno(), b"\nStopping; this takes a few seconds.\n")
    raise KeyboardInterrupt


def _temporary_folder() -> str:
    # An interruption in between would leave a folder that nobody knows.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        folder = tempfile.mkdtemp(prefix="certbaton-demo-")
        _folders.append(folder)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return folder


_folders: list[str] = []


# The first to be registered is the last to run: nothing is running any more by then.
@atexit.register
def _remove_folders() -> None:
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


def _process_began() -> float:
    """When this process was started, so that imports count too."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


if __name__ == "__main__":
    sys.exit(main())
