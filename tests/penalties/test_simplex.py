"""log Z_K of the entropy prior against quadrature and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import gammaln, xlogy

from reml_sae.errors import InputError
from reml_sae.penalties import log_simplex_partition


@pytest.mark.parametrize("strength", [0.01, 0.7, 5.0, 60.0, 3000.0])
def test_two_atoms(strength):
    def density(a):
        return np.exp(strength * (xlogy(a, a) + xlogy(1 - a, 1 - a)))

    edges = np.concatenate([[0.0], np.geomspace(1e-9, 0.5, 19)])
    total = 2 * sum(quad(density, low, high, epsabs=0, epsrel=1e-12)[0]
                    for low, high in pairwise(edges))
    assert log_simplex_partition(2, strength)[0] == pytest.approx(np.log(total), abs=1e-9)


@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_three_atoms(strength):
    def density(b, a):
        return np.exp(strength * (xlogy(a, a) + xlogy(b, b)
                                  + xlogy(1 - a - b, np.maximum(1 - a - b, 1e-300))))

    total = dblquad(density, 0, 1, 0, lambda a: 1 - a, epsabs=1e-9, epsrel=1e-9)[0]
    assert log_simplex_partition(3, strength)[0] == pytest.approx(np.log(total), abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 10, 1000])
def test_without_strength_it_is_the_volume(k):
    assert log_simplex_partition(k, 0.0)[0] == pytest.approx(-gammaln(k), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("k", [2, 7, 40])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 300.0])
def test_slope(k, strength):
    step = 1e-4
    up, down = (log_simplex_partition(k, strength * np.exp(s))[0] for s in (step, -step))
    slope = log_simplex_partition(k, strength)[1]
    assert slope == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-9)


def test_many_atoms_decrease_with_the_strength():
    values = [log_simplex_partition(1000, s)[0] for s in (1.0, 1e2, 1e4, 1e6)]
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize("strength", [-1.0, np.nan, 1e12])
def test_wrong_strength(strength):
    with pytest.raises(InputError, match="strength"):
        log_simplex_partition(3, strength)
