"""One soak: two lanes of faults over a running world, watched all the while."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from lab.kube import KubeError
from lab.show import Screen
from soak import judge
from soak.faults import DAEMON, Fault, Scene
from soak.feed import Feed
from soak.judge import Version, Window
from soak.keeper import Keeper
from soak.looking import Eyes, Sampler
from soak.place import PLACE
from soak.site import CERTIFICATES, LIFETIME_S, OF, SERVICES, Ref, build

# Between two faults of a lane.
PAUSE_S = (0.5, 6.0)
# The controller backs off like Oracle's, scaled: after a fault it needs as long again, at most.
AFTERMATH_S = 4.0
SETTLE_S = 2.0 * LIFETIME_S
CHECK_S = 10.0
_SIGNED = re.compile(r"^Pebble (\S+ \S+) Issued certificate serial (\S+) for order ")


class Soak:
    """From the first server to the report."""

    def __init__(self, seed: int, screen: Screen, folder: Path | None = None) -> None:
        self.seed, self.screen, self._folder = seed, screen, folder
        self.counts: Counter[str] = Counter()
        self.windows: list[Window] = []
        self.broken: list[str] = []
        self.wasted: list[str] = []
        self.rejections: list[str] = []
        self.stuck: list[str] = []
        self.rollovers = 0
        self.longest, self.longest_at = 0.0, ""
        self._lock = threading.Lock()
        self._whole: set[str] = set()
        self._stop = threading.Event()
        self._lanes: list[threading.Thread] = []

    def run(self, rollovers: int | None, minutes: float | None) -> dict[str, Any]:
        """All of it; the report."""
        with ExitStack() as stack:
            self.screen.step("starting the servers")
            self.world = build(stack, self.seed, folder=self._folder)
            self.feed = stack.enter_context(Feed(self.world.plane.admin, self._stored))
            self.eyes = stack.enter_context(Eyes(self.world))
            self.sampler = stack.enter_context(Sampler(self.world))
            keeper = Keeper(self.world, lambda text: self.screen.step(text, "yellow"))
            self.scene = Scene(self.world, keeper, self._stop)
            stack.enter_context(keeper)
            stack.callback(self._end_lanes)
            self._wait(self._all_served, 120, "the first certificates are not served")
            self.screen.step("every listener serves its first certificate; the faults begin")
            self._begin_lanes()
            self._soak(rollovers, minutes)
            self._end_lanes()
            self.screen.step("quiet: no further faults", "bold")
            keeper.disarm()
            self._settle()
            self._judge(final=True)
            return self._report()

    # --- faults -------------------------------------------------------------------------

    def _begin_lanes(self) -> None:
        for name, faults in (("daemon", DAEMON), ("place", PLACE)):
            lane = threading.Thread(
                target=self._lane, args=(name, faults), name=f"faults-{name}", daemon=True
            )
            self._lanes.append(lane)
            lane.start()

    def _end_lanes(self) -> None:
        self._stop.set()
        for lane in self._lanes:
            lane.join(180)
        self._lanes = []

    def _lane(self, name: str, faults: tuple[Fault, ...]) -> None:
        dice = Random(f"{self.seed} {name}")  # each fault its own, so that timing changes none
        weights = [fault.weight for fault in faults]
        while not self._stop.wait(dice.uniform(*PAUSE_S)):
            fault = dice.choices(faults, weights)[0]
            self._inject(fault, Random(dice.getrandbits(64)))

    def _inject(self, fault: Fault, dice: Random) -> None:
        window = Window(fault.kind, time.time(), place=fault.place)
        with self._lock:
            self.windows.append(window)
        try:
            fault.act(self.scene, dice, window)
            self.counts[fault.kind] += 1  # each lane has kinds of its own
        except Exception as error:  # noqa: BLE001 - the lab's own servers are away at times
            self.screen.step(f"{fault.kind} could not be made: {error:.100}", "dim")
        now = time.time()
        lasted = now - window.begin
        window.end = now + (AFTERMATH_S + lasted if fault.place else 0)
        extra = f", {window.offset:+.1f} s" if window.offset else ""
        self.screen.step(f"{window.kind}{extra} ({lasted:.1f} s)", "cyan" if fault.place else "")

    def _stored(self, version: Version) -> None:
        if version.certificate in self.scene.to_refuse:
            self.world.cloud.faults.refuse.add(version.name)
            self.scene.to_refuse.discard(version.certificate)
            version.refused = True
            self.scene.refused.append(version)
            self.screen.step(f"OCI will refuse {version.name}", "yellow")

    # --- watching -----------------------------------------------------------------------

    def _soak(self, rollovers: int | None, minutes: float | None) -> None:
        end = time.monotonic() + (
            minutes * 60 if minutes is not None else 300 + (rollovers or 0) * LIFETIME_S
        )
        check = time.monotonic() + CHECK_S
        while time.monotonic() < end and (rollovers is None or self.rollovers < rollovers):
            self._stop.wait(0.2)
            self._count()
            if time.monotonic() > check:
                self._judge()
                check = time.monotonic() + CHECK_S

    def _count(self) -> None:
        """Tell of versions that every Service serves by now."""
        for version in list(self.feed.versions.values()):
            if version.name in self._whole:
                continue
            refs = CERTIFICATES[version.certificate][1]
            if all(self._seen(version, ref) for ref in refs):
                self._whole.add(version.name)
                if sum(name.startswith(f"{version.certificate}-") for name in self._whole) == 1:
                    continue  # the first is no rollover
                self.rollovers += 1
                took = time.time() - version.stored
                self.screen.step(
                    f"rollover {self.rollovers}: {version.name}, {took:.1f} s after it was stored",
                    "green",
                )

    def _seen(self, version: Version, ref: Ref) -> bool:
        return any(run.leaf == version.leaf for run in reversed(self.eyes.runs[ref]))

    def _newest(self, certificate: str, service: str) -> Version | None:
        mine = [
            version
            for version in self.feed.versions.values()
            if version.certificate == certificate
            and judge.good(version, service)
            and version.deleted is None
        ]
        return max(mine, key=lambda version: version.issued, default=None)

    def _lacks(self) -> list[str]:
        """What is not as it should be at rest."""
        lacks = []
        for name, (_, refs) in CERTIFICATES.items():
            for ref in refs:
                service = "/".join(ref)
                newest = self._newest(name, service)
                if newest is None:
                    lacks.append(f"{service}: there is no version")
                elif self.eyes.now(ref) != newest.leaf:
                    lacks.append(f"{service} does not serve {newest.name}")
                elif service not in newest.noted:
                    lacks.append(f"{newest.name} is not noted as served at {service}")
        return lacks

    def _all_served(self) -> bool:
        return not self._lacks()

    def _wait(self, what: Any, seconds: float, trouble: str) -> bool:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                self.broken.append(trouble)
                return False
            time.sleep(0.2)
        return True

    def _settle(self) -> None:
        end = time.monotonic() + SETTLE_S
        while (lacks := self._lacks()) and time.monotonic() < end:
            time.sleep(0.2)
            self._count()
        self.stuck = lacks
        self._count()
        if not lacks:
            self.screen.step("everything has settled", "green")

    # --- judging --------------------------------------------------------------------------

    def _judge(self, *, final: bool = False) -> None:
        windows, versions = list(self.windows), list(self.feed.versions.values())
        found = list(self.feed.trouble) + list(self.scene.keeper.trouble)
        # Where the server is away, the next look sees it all.
        with contextlib.suppress(KubeError, AssertionError):
            found += self.feed.dangling()
        for at, name in list(self.sampler.together):
            if judge.outside(at - 0.1, at, windows) > 0:
                found.append(f"two listeners of {name} were in change at the same time")
        for ref in SERVICES:
            service, runs = "/".join(ref), list(self.eyes.runs[ref])
            found += judge.expired(service, versions, runs, windows)
            mine = [version for version in versions if version.certificate == OF[ref]]
            seconds, since = judge.unwanted(service, mine, runs, windows)
            if seconds > self.longest:
                self.longest, self.longest_at = seconds, f"{service} from {_clock(since)}"
        if final:
            found += self._told()
            signed = signed_by(self.world.pebble.process.log.read_text())
            self.wasted = judge.wasted(CERTIFICATES, versions, signed, windows, self.scene.forgot)
        self.rejections = judge.false_rejections(versions, windows)
        for sentence in found:
            if sentence not in self.broken:
                self.broken.append(sentence)
                self.screen.step(f"BROKEN: {sentence}", "red")

    def _told(self) -> list[str]:
        found = []
        for log in sorted(self.world.folder.glob("daemon-*.log")):
            text = log.read_text()
            if "PRIVATE KEY" in text or any(key in text for key in self.feed.keys):
                found.append(f"{log.name} holds key material")
            if '"event": "turn_broke"' in text or '"event": "tick_broke"' in text:
                found.append(f"{log.name} tells of a mistake of the daemon's own")
        return found

    def _report(self) -> dict[str, Any]:
        counts = self.counts + Counter({"died-at-write": self.scene.keeper.died_at_a_write})
        return {
            "seed": self.seed,
            "faults": dict(sorted(counts.items())),
            "rollovers": self.rollovers,
            "invariants_broken": self.broken,
            "issuances_wasted": len(self.wasted),
            "false_rejections": len(self.rejections),
            "stuck_rollouts": len(self.stuck),
            "longest_unwanted_s": round(self.longest, 1),
        }


def signed_by(log: str) -> list[tuple[int, float]]:
    """What Pebble signed, from its log: serial and second."""
    found = []
    for line in log.splitlines():
        match = _SIGNED.search(line)
        if match is not None:
            at = datetime.strptime(match[1], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
            found.append((int(match[2], 16), at.timestamp()))
    return found


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
