"""
Answers to challenges: put up by a certificate's solver, and all taken away again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from certbaton.errors import AccountMissing, CaUnavailable, PermanentError, RetryableError
from certbaton.model import ChallengeInfo
from certbaton.solvers import Solver
from certbaton.telemetry import logger

# A name server that is gone for good must not keep an order open for ever.
CLEAN_UP_TRIES = 3

Derive = Callable[[str], Sequence[ChallengeInfo]]


class Challenges:
    """What this process has put up, by the URL of the order."""

    def __init__(self, solvers: Mapping[str, Solver], solver_of: Mapping[str, str]) -> None:
        """*solver_of* names each certificate's solver."""
        self._solvers = solvers
        self._solver_of = solver_of
        self._presented: dict[str, dict[str, ChallengeInfo]] = {}
        self._unclean: dict[str, int] = {}

    def solver(self, name: str) -> Solver | None:
        """The solver of certificate *name*; None where it left the configuration."""
        return self._solvers[self._solver_of[name]] if name in self._solver_of else None

    def kind(self, name: str) -> str:
        """The challenge type that *name*'s solver answers, "" without one."""
        solver = self.solver(name)
        return solver.challenge_type if solver is not None else ""

    def begin(self, url: str) -> None:
        """From here on this process knows all that is put up for the order at *url*."""
        self._presented[url] = {}

    def present(self, name: str, url: str, challenges: Sequence[ChallengeInfo]) -> None:
        """Put the answers up; SolverNotReady until the CA would find them."""
        solver = self.solver(name)
        if solver is None:
            raise PermanentError(f"no solver is configured for {name}")
        for challenge in challenges:
            if url in self._presented:
                self._presented[url][challenge.url] = challenge
            solver.present(challenge)
        for challenge in challenges:
            solver.ready(challenge)

    def clean_up(self, name: str, url: str | None, derive: Derive, *, asking: bool = True) -> None:
        """
        Take the answers for the order at *url* away again.

        After a restart *derive* is asked for them, given the challenge type; not so if not
        *asking*. RetryableError twice; then what is left is left, and told.
        """
        solver = self.solver(name)
        if solver is None or url is None:
            return
        try:
            presented = self._presented.get(url)
            if presented is not None:
                known: Sequence[ChallengeInfo] = list(presented.values())
            elif asking:
                known = derive(solver.challenge_type)
            else:
                raise CaUnavailable("the CA that gave them does not answer")
            for challenge in known:
                solver.clean_up(challenge)
        except AccountMissing:
            pass  # its orders are gone with it, and nothing says what to look for
        except (RetryableError, PermanentError) as exc:
            tries = self._unclean[url] = self._unclean.get(url, 0) + 1
            if tries < CLEAN_UP_TRIES and (asking or not isinstance(exc, CaUnavailable)):
                raise RetryableError(f"challenges could not be taken away yet: {exc}") from exc
            logger().warning("challenges_left", certificate=name, error=str(exc))
        self._unclean.pop(url, None)
        self._presented.pop(url, None)
