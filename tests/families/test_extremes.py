"""Nothing overflows, becomes NaN or warns, for any linear predictor and any psi of the box."""

import itertools

import numpy as np
import pytest

from reml_sae.families import (
    Binomial,
    Gamma,
    NegativeBinomial,
    Poisson,
    StudentT,
    Tweedie,
    get_family,
)

COUNTS = np.array([0.0, 1.0, 5.0, 1e6, 1e12])
REALS = np.array([-1e12, -1.0, 0.0, 1e-12, 1e12])
POSITIVE = np.array([1e-300, 1e-12, 1.0, 1e6, 1e12])
LEGAL = {
    "gaussian": REALS, "poisson": COUNTS, "negative_binomial": COUNTS, "student_t": REALS,
    "binomial": np.array([0.0, 1.0, 20.0, 39.0, 40.0]), "gamma": POSITIVE,
    "tweedie": np.concatenate([POSITIVE, [0.0]]),
}
FAMILIES = [Binomial(40), *(get_family(name) for name in LEGAL if name != "binomial"),
            StudentT(2.5), Tweedie(1.01), Tweedie(1.99)]
WILD = np.array([-1e6, -1e4, -700.0, -400.0, -40.0, 0.0, 40.0, 400.0, 700.0, 1e4, 1e6])


def corners(family):
    """The corners of the box of psi and its centre."""
    box = family.psi_bounds()
    return [*map(np.array, itertools.product(*box)), box.mean(axis=1)]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_finite_everywhere(family):
    z = LEGAL[family.name][:, None]
    family.check(z)
    for psi in corners(family):
        found = [family.loss(z, WILD, psi), family.deviance(z, WILD, psi),
                 family.loss_psi(z, WILD, psi), family.weight_psi(z, WILD, psi),
                 *(family.loss_eta(z, WILD, psi, order) for order in (1, 2, 3)),
                 *(family.loss_eta_psi(z, WILD, psi, order) for order in (1, 2)),
                 *(family.weight(z, WILD, psi, order) for order in (0, 1)), family.mean(WILD)]
        for values in found:
            assert np.isfinite(values).all()
            assert np.isfinite(1e4 * values.sum())  # so do totals over large data
        assert (family.deviance(z, WILD, psi) >= 0.0).all()
        assert (family.weight(z, WILD, psi, 0) >= 0.0).all()
        assert not np.isnan(family.variance(WILD, psi)).any()


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_loss_grows_away_from_the_data(family):
    z = LEGAL[family.name][:, None]
    for psi in corners(family):
        slope = family.loss_eta(z, WILD, psi, 1)
        best = np.log(np.maximum(z, 1e-300)) if family.link == "log" else family.initial_eta(z)
        has_least = (z > 0.0) | (family.link == "identity")  # else the best eta is -inf
        has_most = (z < 40.0) | (family.name != "binomial")
        assert (slope[(WILD - best > 50.0) & has_most] >= 0.0).all()
        assert (slope[(WILD - best < -50.0) & has_least] <= 0.0).all()


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_starts(family):
    z = np.tile(LEGAL[family.name], (3, 1))
    assert np.isfinite(family.initial_eta(z)).all()
    low, high = family.psi_bounds().T
    for data in (z, z[:, 0], np.ones((4, 2))):  # constant columns too
        psi = family.initial_psi(data)
        assert psi.shape == (family.n_psi,) == low.shape
        assert (low <= psi).all() and (psi <= high).all()


@pytest.mark.parametrize(("family", "psi"), [
    (get_family("gaussian"), np.log([0.3])), (Gamma(), np.log([0.2])),
    (Tweedie(1.4), np.log([0.8])), (NegativeBinomial(), np.log([2.0])),
    (StudentT(), np.log([0.3, 5.0]))], ids=repr)
def test_start_of_psi_is_near_the_truth(family, psi):
    eta = np.broadcast_to([0.5, 1.5], (4000, 2))
    z = family.sample(np.random.default_rng(0), eta, psi)
    np.testing.assert_allclose(family.initial_psi(z)[0], psi[0], atol=0.3)


def test_tails_of_rare_outcomes():
    # a success with eta = -40 costs 40 nats, to relative rounding, on either side
    one = Binomial()
    none = np.zeros(0)
    assert one.loss(1.0, -40.0, none) == pytest.approx(40.0, rel=1e-14)
    assert one.loss(0.0, -40.0, none) == pytest.approx(np.exp(-40.0), rel=1e-12)
    assert one.loss_eta(1.0, 40.0, none, 1) == pytest.approx(-np.exp(-40.0), rel=1e-12)
    assert one.weight(1.0, 40.0, none, 0) == pytest.approx(np.exp(-40.0), rel=1e-12)
    assert Poisson().loss(0.0, -40.0, none) == pytest.approx(np.exp(-40.0), rel=1e-12)
