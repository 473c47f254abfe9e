"""What the soak takes for a failure of its own: too few rollovers, no last look."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from lab.kube import KubeError
from lab.show import Screen
from soak import run
from soak.__main__ import conclude
from soak.run import Soak, dangling, shortfall, signed_by


def test_fewer_rollovers_than_were_asked_for_are_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A renewal that never came is stuck, whatever else looks well."""
    assert shortfall(50, 50, 900) == shortfall(3, None, 60) == []
    soak = Soak(7, Screen(sys.stdout, time.time()))
    soak.stuck += shortfall(3, 50, 8300)
    assert conclude(soak.screen, soak, soak.report(), 8300) == 1
    assert "only 3 of 50 rollovers came within 8300 s" in capsys.readouterr().out
    assert soak.report()["stuck_rollouts"] == 1


def trouble(error: Exception) -> Callable[[], list[str]]:
    def look() -> list[str]:
        raise error

    return look


@pytest.mark.parametrize(
    "error", [KubeError(503, "Unavailable", "away"), AssertionError("the watch lags")]
)
def test_a_last_look_that_cannot_be_made_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """One in between is made up for by the next."""
    monkeypatch.setattr(run, "LAST_LOOK_S", 0.0)
    assert dangling(trouble(error), final=False) == []
    (sentence,) = dangling(trouble(error), final=True)
    assert "the last look" in sentence
    assert dangling(lambda: ["x"], final=True) == ["x"]


def test_what_pebble_signed_is_read_with_its_order() -> None:
    log = "Pebble 2026/11/25 01:53:46 Issued certificate serial 42ad for order 4z1B_-x\nother\n"
    (one,) = signed_by(log)
    assert (one.serial, one.order) == (0x42AD, "4z1B_-x")
