"""One soak: two lanes of faults over a running world, watched all the while."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
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
from soak.judge import Effect, Signed, Version, Window
from soak.keeper import Keeper
from soak.looking import Eyes, Sampler
from soak.place import PLACE
from soak.site import CERTIFICATES, INSIDE, LIFETIME_S, OF, SERVICES, SIBLINGS, Ref, build

# Between two faults of a lane.
PAUSE_S = (0.5, 6.0)
# A sync that was under way when a fault ended has failed by then, if it was to fail.
ENDED_S = 1.0
# A lack that lasts until the next version is due is a rollout that did not end.
LOST_S = LIFETIME_S / 2
LAST_LOOK_S = 20.0
SETTLE_S = 2.0 * LIFETIME_S
CHECK_S = 10.0
_SIGNED = re.compile(r"^Pebble (\S+ \S+) Issued certificate serial (\S+) for order (\S+)")


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
        self.rollovers = self.died_at_a_write = 0
        self.longest, self.longest_at = 0.0, ""
        self._lock = threading.Lock()
        self._whole: set[str] = set()
        self._stop = threading.Event()
        self._lanes: list[threading.Thread] = []
        self._ending: list[Window] = []

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
            self.died_at_a_write = keeper.died_at_a_write
            return self.report()

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
        window = Window(fault.kind, time.time(), effect=fault.effect)
        with self._lock:
            self.windows.append(window)
        try:
            fault.act(self.scene, dice, window)
            self.counts[fault.kind] += 1  # each lane has kinds of its own
        except Exception as error:  # noqa: BLE001 - the lab's own servers are away at times
            self.screen.step(f"{fault.kind} could not be made: {error:.100}", "dim")
        # A look that is made meanwhile takes it to be still on.
        window.over = dict.fromkeys(SIBLINGS, float("inf"))
        window.end = time.time()
        lasted = window.end - window.begin
        with self._lock:
            self._ending.append(window)
        extra = f", {window.offset:+.1f} s" if window.offset else ""
        colour = "cyan" if window.effect is not Effect.NONE else ""
        self.screen.step(f"{window.kind}{extra} ({lasted:.1f} s)", colour)

    def _come_to_themselves(self, *, at_once: bool = False) -> None:
        """Of faults that have ended, find out how long the controller is in a back-off still."""
        with self._lock:
            now = time.time()
            ready = [one for one in self._ending if at_once or one.end + ENDED_S <= now]
            self._ending = [one for one in self._ending if one not in ready]
        retries = self.world.cloud.retries()
        for window in ready:
            window.over = {
                "/".join(ref): now + seconds + judge.ROUND_S for ref, seconds in retries.items()
            }

    def _stored(self, version: Version) -> None:
        if version.certificate in self.scene.to_refuse:
            self.world.cloud.faults.refuse.add(version.name)
            self.scene.to_refuse.discard(version.certificate)
            version.refused = True
            self.scene.refused.append(version)
            self.screen.step(f"OCI will refuse {version.name}", "yellow")

    # --- watching -----------------------------------------------------------------------

    def _soak(self, rollovers: int | None, minutes: float | None) -> None:
        began = time.monotonic()
        end = began + (minutes * 60 if minutes is not None else patience(rollovers or 0))
        check = time.monotonic() + CHECK_S
        while time.monotonic() < end and (rollovers is None or self.rollovers < rollovers):
            self._stop.wait(0.2)
            self._count()
            self._come_to_themselves()
            if time.monotonic() > check:
                self._judge()
                check = time.monotonic() + CHECK_S
        self.stuck += shortfall(self.rollovers, rollovers, time.monotonic() - began)

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
            self._come_to_themselves()
        self.stuck += lacks
        self._count()
        if not lacks:
            self.screen.step("everything has settled", "green")

    # --- judging --------------------------------------------------------------------------

    def _judge(self, *, final: bool = False) -> None:
        self._come_to_themselves(at_once=final)
        windows, versions = list(self.windows), list(self.feed.versions.values())
        found = list(self.feed.trouble) + list(self.scene.keeper.trouble)
        found += dangling(self.feed.dangling, final=final)
        found += judge.collected(versions)
        for at, name in list(self.sampler.together):
            services = ["/".join(ref) for ref in CERTIFICATES[name][1]]
            if judge.outside(at - 0.1, at, judge.spans(windows, services, judge.HOLDS)) > 0:
                found.append(f"two listeners of {name} were in change at the same time")
        for ref in SERVICES:
            service, runs = "/".join(ref), list(self.eyes.runs[ref])
            siblings = SIBLINGS[service]
            mine = [version for version in versions if version.certificate == OF[ref]]
            found += judge.expired(service, mine, runs, windows, siblings)
            seconds, since = judge.unwanted(service, mine, runs, windows, siblings)
            if final and seconds > LOST_S:
                self.stuck.append(
                    f"{service} lacked the newest good version for {seconds:.0f} s from "
                    f"{_clock(since)}, which is as long as it takes until the next is due"
                )
            if seconds > self.longest:
                self.longest, self.longest_at = seconds, f"{service} from {_clock(since)}"
        if final:
            found += self._told()
            signed = signed_by(self.world.pebble.process.log.read_text())
            self.wasted = judge.wasted(
                CERTIFICATES, versions, signed, windows, self.scene.forgot, dict(self.feed.orders)
            )
        inside = {"/".join(ref) for ref in INSIDE}
        self.rejections = judge.false_rejections(versions, windows, inside)
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

    def report(self) -> dict[str, Any]:
        """What came of it, as the JSON has it."""
        counts = self.counts + Counter({"died-at-write": self.died_at_a_write})
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


def patience(rollovers: int) -> float:
    """How long so many rollovers may take: each certificate has one in every half of its life."""
    return 300.0 + rollovers * LIFETIME_S


def shortfall(came: int, wanted: int | None, seconds: float) -> list[str]:
    """What to say where fewer rollovers came than were asked for."""
    if wanted is None or came >= wanted:
        return []
    return [f"only {came} of {wanted} rollovers came within {seconds:.0f} s: a renewal is missing"]


def dangling(look: Callable[[], list[str]], *, final: bool) -> list[str]:
    """
    What *look* finds; where the server is away, the next look sees it all.

    The last look has no next one: it is tried again for a while, and then it is a failure.
    """
    end = time.monotonic() + (LAST_LOOK_S if final else 0)
    while True:
        try:
            return look()
        except (KubeError, AssertionError) as error:
            if not final:
                return []
            if time.monotonic() > end:
                return [f"the last look at Services and Secrets could not be made: {error}"]
        time.sleep(1)


def signed_by(log: str) -> list[Signed]:
    """What Pebble signed, from its log: serial, second and order."""
    found = []
    for line in log.splitlines():
        match = _SIGNED.search(line)
        if match is not None:
            at = datetime.strptime(match[1], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
            found.append(Signed(int(match[2], 16), at.timestamp(), match[3]))
    return found


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
