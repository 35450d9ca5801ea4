"""Priors of decoders and centres, at their own size in every metric."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.discovery.metric import MetricRows, without_atoms
from reml_sae.families.noise import Factors
from reml_sae.manifolds import Circle


def rows_on_a_circle(n, p, factors, seed):
    """A circle of radius 2 amid factors of sd 3 to 1 and white noise of sd .1."""
    rng = np.random.default_rng([n, p, factors, seed])
    t = rng.uniform(-np.pi, np.pi, n)
    frame = np.linalg.qr(rng.standard_normal((p, 2 + factors)))[0].T
    Z = 2.0 * np.column_stack([np.cos(t), np.sin(t)]) @ frame[:2]
    Z += (rng.standard_normal((n, factors)) * np.linspace(3, 1, factors)) @ frame[2:]
    return Z + 0.1 * rng.standard_normal((n, p)), t


def alone(Z, n_factors):
    """V of rows that are a mean and noise."""
    Z = Z - Z.mean(axis=0)
    unit = float(np.sqrt(np.mean(Z**2)))
    return without_atoms(MetricRows.isotropic(Z / unit, unit), Factors(n_factors))


@pytest.mark.parametrize("seed", range(2))
def test_a_circle_of_more_columns_than_rows_is_better_than_two_factors(seed):
    """By its density: a uniform angle is 1.88 nats a row better than two normal coordinates."""
    Z, t = rows_on_a_circle(50, 400, 0, seed)
    fit = rs.SAEManifold(n_atoms=1, topology=Circle(1), noise="isotropic", n_init=1).fit(Z)
    angles = fit.codes_.coordinates[0][:, 0]
    assert max(abs(np.mean(np.exp(1j * (angles - s * t)))) for s in (1, -1)) > 0.99
    assert 60.0 < alone(Z, 2) - fit.criterion_ < 140.0


@pytest.mark.parametrize(("n", "p"), [(50, 20), (50, 100)])
def test_a_needless_circle_is_no_better_for_being_small(n, p):
    rng = np.random.default_rng(p)
    frame = np.linalg.qr(rng.standard_normal((p, 2)))[0].T
    Z = (rng.standard_normal((n, 2)) * [3.0, 1.0]) @ frame + 0.1 * rng.standard_normal((n, p))
    fit = rs.SAEManifold(n_atoms=1, topology=Circle(1), noise={"kind": "factor", "rank": 2},
                         n_init=1).fit(Z)
    assert fit.criterion_ > alone(Z, 2) + 1.0
    assert fit.strengths_["decoder_ridge.decoder[0]"] <= 4.0 * (1.0 + 1e-12)


def test_a_ridge_takes_the_place_of_the_unit_prior():
    Z, _ = rows_on_a_circle(60, 5, 0, 0)
    values = [rs.SAEManifold(
        n_atoms=1, topology=Circle(1), noise="isotropic", n_init=1, penalties=penalties
    ).fit(Z).criterion_ for penalties in (
        [], [pen.DecoderRidgePenalty(functions=3, learnable=False)],
        [pen.DecoderRidgePenalty(functions=3, weight=2.0)], None)]
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[2] == pytest.approx(values[3], abs=1e-3)
    assert values[3] <= values[0] + 1e-6


def test_a_ridge_is_no_stronger_than_its_least_size():
    low, high = pen.DecoderRidgePenalty(functions=3, weight=0.5).rho_bounds()[0]
    assert 0.5 * np.exp(high) == pytest.approx(4.0)
    assert low < 0.0
