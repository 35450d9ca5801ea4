"""Data in any units: the same fit, or an InputError that says what is wrong with the units."""

import warnings

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import DataWarning, InputError

Z = planted_circles(50, 4, 1, noise_sd=0.2).Z
EXPONENTS = [-323, -300, -200, -150, -139, -100, -30, -3, 3, 30, 100, 139, 150, 200, 300, 307]


def fit(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rs.SAEManifold(n_atoms=1, n_init=1, max_outer=100).fit(data)


@pytest.fixture(scope="module")
def plain():
    found = fit(Z)
    assert found.converged_
    return found


@pytest.mark.parametrize(("exponent", "shift"), [
    *((exponent, 0.0) for exponent in EXPONENTS),
    *((exponent, 3.0) for exponent in EXPONENTS[::3])])
def test_units_change_v_by_a_constant_and_nothing_else(exponent, shift, plain):
    factor = float(f"1e{exponent}")
    if abs(exponent) > 139:
        with pytest.raises(InputError, match=r"Z (varies by about|has entries of up to) [\d.]+e"):
            fit(factor * (Z + shift))
        return
    found = fit(factor * (Z + shift))
    assert found.converged_ and found.message_ == plain.message_
    change = Z.size * np.log(factor)
    assert found.criterion_ - change == pytest.approx(plain.criterion_, abs=1e-6)
    np.testing.assert_allclose(found.codes_.coordinates[0], plain.codes_.coordinates[0],
                               rtol=0, atol=1e-6)
    assert found.dispersion_ / factor**2 == pytest.approx(plain.dispersion_, rel=1e-6)
    np.testing.assert_allclose(found.predict(factor * (Z + shift)) / factor - shift,
                               plain.predict(Z), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-320, -1e-200, 1e-30, 7.0, 1e30, 1e139])
def test_constant_data_of_any_size(value):
    with pytest.warns(DataWarning, match="constant"):
        found = rs.SAEManifold(n_atoms=1, n_init=1, max_outer=5).fit(np.full((20, 3), value))
    assert np.isfinite(found.criterion_) and np.isfinite(found.dispersion_)
    np.testing.assert_allclose(found.predict(np.full((2, 3), value)), value, rtol=1e-9)


@pytest.mark.parametrize("method", ["transform", "predict", "score", "build_model"])
def test_rows_far_beyond_those_of_the_fit_are_refused(method, plain):
    with pytest.raises(InputError, match=r"Z has entries of up to [\d.]+e\+200"):
        getattr(plain, method)(1e200 * Z)


@pytest.mark.parametrize("family", ["student_t", "poisson", "gamma", "tweedie",
                                    "negative_binomial"])
@pytest.mark.parametrize("exponent", [200, 300])
def test_other_families_refuse_what_would_overflow(family, exponent):
    data = np.floor(np.abs(Z) * 10.0) + 1.0
    with pytest.raises(InputError, match=r"Z has entries of up to [\d.]+e"):
        rs.SAEManifold(n_atoms=1, n_init=1, family=family).fit(data * float(f"1e{exponent}"))
