"""A solver whose answers are put up and taken away only while a check passes."""

from __future__ import annotations

from collections.abc import Callable

from certbaton.model import ChallengeInfo
from certbaton.solvers import Solver


class FencedSolver:
    """
    `Solver` on *solver*; *check* raises where nothing may be changed.

    A process that another one has taken over from must not take away what that one has put up:
    the same order has the same challenges.
    """

    def __init__(self, solver: Solver, check: Callable[[], None]) -> None:
        self._solver = solver
        self._check = check

    @property
    def challenge_type(self) -> str:
        return self._solver.challenge_type

    def start(self) -> None:
        self._solver.start()

    def close(self) -> None:
        self._solver.close()

    def present(self, challenge: ChallengeInfo) -> None:
        self._check()
        self._solver.present(challenge)

    def ready(self, challenge: ChallengeInfo) -> None:
        self._solver.ready(challenge)

    def clean_up(self, challenge: ChallengeInfo) -> None:
        self._check()
        self._solver.clean_up(challenge)
