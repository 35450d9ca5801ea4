"""The end of a search where V has a minimum without a gradient that vanishes."""

from types import SimpleNamespace

import numpy as np
import pytest

from reml_sae.engine import OuterStatus
from reml_sae.engine.crease import crease
from reml_sae.errors import InnerConvergenceError


class Creased:
    """A loop whose V is steep across a crease and a parabola along it, above which V is lost."""

    def __init__(self, start, slopes, lost=np.inf):
        self.slopes, self.lost, self.left, self.steps = slopes, lost, 60, 0
        self.outer = SimpleNamespace(clip=lambda rho: np.clip(rho, -3.0, 3.0))
        self.keep(np.array(start), self.evaluate(np.array(start), gradient=True))

    def evaluate(self, rho, gradient):
        if rho[0] > self.lost:
            raise InnerConvergenceError("no mode")
        slope = self.slopes[int(rho[0] > 0.0)]
        return SimpleNamespace(
            value=slope * rho[0] + 2.0 * (rho[1] - 1.0) ** 2,
            gradient=np.array([slope, 4.0 * (rho[1] - 1.0)]),
            inner=SimpleNamespace(converged=True))

    def projected(self, rho, gradient):
        return gradient

    def keep(self, rho, value):
        self.best_rho, self.found = rho, value

    def record(self, stage, rho, value):
        assert stage == "crease"
        self.steps += 1


@pytest.mark.parametrize("slopes", [(-10.0, 10.0), (-30.0, 3.0)])
@pytest.mark.parametrize("lost", [np.inf, 0.5])
def test_it_follows_the_crease_to_its_lowest_point(slopes, lost):
    loop = Creased([0.01, 0.0], slopes, lost)
    assert crease(loop) is OuterStatus.CREASE
    assert loop.found.value < 0.01 and loop.steps > 0


def test_a_slope_without_an_end_is_no_crease():
    loop = Creased([0.01, 1.0], (10.0, 10.0))
    loop.outer.clip = lambda rho: rho
    assert crease(loop) is OuterStatus.STALLED
