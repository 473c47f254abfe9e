"""Three processes at random, with pauses, lost requests, lost answers and clocks that lie."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from certbaton.cluster import Kind
from lease.clocks import Contender, World

NAMES = st.integers(0, 2)
# Clocks run apart by less than the holder's margin allows.
RATES = (1.0, 0.98, 1.03)
SKEWS = (0.0, -7200.0, 86400.0)


class Contenders(RuleBasedStateMachine):
    """
    The invariant: never are two of them valid at one moment.

    A process that is stopped in the middle of a write is one whose write arrives when others
    have acted: `stopped` lets them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.them = [
            Contender(self.world, f"p{number}", skew=skew, rate=rate)
            for number, (skew, rate) in enumerate(zip(SKEWS, RATES, strict=True))
        ]

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 19.0, 21.0, 53.0, 61.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.time += seconds
        self.nobody_else()

    @rule(seconds=st.sampled_from([1.0, 10.0, 50.0, 70.0]), who=NAMES, others=st.booleans())
    def one_works(self, seconds: float, who: int, others: bool) -> None:
        """For some time, and the others as well, or they are stopped."""
        end = self.world.time + seconds
        them = self.them if others else [self.them[who]]
        for _ in range(1000):
            first = min(them, key=lambda contender: contender.due)
            if first.due > end:
                break
            self.world.time = max(self.world.time, first.due)
            first.step()
            self.nobody_else()
        self.world.time = max(self.world.time, end)

    @rule(who=NAMES)
    def step(self, who: int) -> None:
        self.them[who].step()

    @rule(who=NAMES)
    def hear(self, who: int) -> None:
        self.them[who].hears()

    @rule(who=NAMES)
    def campaign(self, who: int) -> None:
        self.them[who].lease.campaign()

    @rule(who=NAMES)
    def release(self, who: int) -> None:
        self.them[who].lease.release()

    @rule(who=NAMES, cut=st.booleans(), deaf=st.booleans())
    def network(self, who: int, cut: bool, deaf: bool) -> None:
        self.them[who].cut, self.them[who].deaf = cut, deaf

    @rule(who=NAMES, before=st.booleans(), seconds=st.sampled_from([1.0, 30.0, 61.0, 200.0]))
    def stopped(self, who: int, before: bool, seconds: float) -> None:
        """In a step that writes, right before the write or right after it, while others go on."""
        one = self.them[who]

        def meanwhile() -> None:
            one.on_write = one.after_write = lambda: None
            end = self.world.time + seconds
            for _ in range(500):
                others = [other for other in self.them if other is not one]
                first = min(others, key=lambda contender: contender.due)
                if first.due > end:
                    break
                self.world.time = max(self.world.time, first.due)
                first.step()
                self.nobody_else()
            self.world.time = max(self.world.time, end)

        if before:
            one.on_write = meanwhile
        else:
            one.after_write = meanwhile
        self.one_works(25.0, who, False)
        one.on_write = one.after_write = lambda: None

    @rule(who=NAMES, hours=st.sampled_from([-1.0, 1.0]))
    def clock_is_put(self, who: int, hours: float) -> None:
        self.them[who].skew += timedelta(hours=hours).total_seconds()

    @precondition(lambda self: self.world.server.all(Kind.LEASE))
    @rule()
    def all_goes_well_for_a_while(self) -> None:
        """Then one of them works in the end."""
        for one in self.them:
            one.cut = one.deaf = False
            one.lease.campaign()
            one.due = self.world.time
        self.one_works(300.0, 0, True)
        assert sum(one.lease.valid() for one in self.them) == 1

    @invariant()
    def nobody_else(self) -> None:
        valid = [one.lease.identity for one in self.them if one.lease.valid()]
        assert len(valid) <= 1, valid


Contenders.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
TestContenders = Contenders.TestCase
