"""Rows of many atoms: no bound on them but the assignment's own."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.encode import encode
from reml_sae.discovery.fitting import model_from_codes
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.discovery.pursuit import pursue
from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Circle
from tests.discovery.test_discovery import settings, standardised

K, P, N = 8, 32, 60


def at_the_plant(kind, n_active, seed, free=False):
    """Model with the planted codes and the decoders that are best for them, and the plant."""
    use = {"n_active_range": (1, n_active)} if free else {"n_active": n_active}
    data = planted_manifolds(N, P, ["circle"] * K, random_state=seed, **use)
    codes = Candidate(data.support, data.support.astype(float), np.hstack(data.coordinates))
    own = settings(P, kind, n_active)
    rows = MetricRows.isotropic(standardised(data.Z))
    return data, model_from_codes(rows, [Circle(1)] * K, own, codes,
                                  {"log_dispersion": np.log(0.02)})


@pytest.mark.parametrize("n_active", range(1, K + 1))
@pytest.mark.parametrize("kind", ["topk", "ordered_beta_bernoulli", "threshold_gate"])
@single_threaded
def test_planted_supports_are_found_from_nothing(kind, n_active):
    right = []
    for seed in range(3):
        data, model = at_the_plant(kind, n_active, seed, free=kind != "topk")
        found = pursue(model, model.initial_theta(), model.initial_rho(), EncodePolicy())
        right += list(np.any([(part.support == data.support).all(axis=1) for part in found],
                             axis=0))
        if kind == "topk":
            assert all((part.support.sum(axis=1) == n_active).all() for part in found)
    assert np.mean(right) > 0.9


def test_codes_use_as_many_atoms_as_the_assignment_says():
    data, model = at_the_plant("topk", 6, 0)
    active = encode(model, model.initial_theta(), model.initial_rho(), EncodePolicy(),
                    search_from_state=False)[1]
    assert (active.sum(axis=1) == 6).all()
    assert (active == data.support).all(axis=1).mean() > 0.9


@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_every_row_of_a_fit_uses_n_active_atoms():
    n_active = 5
    data = planted_manifolds(36, 12, ["circle"] * 6, n_active=n_active)
    model = rs.SAEManifold(n_atoms=6, topology=Circle(1), assignment="topk", n_active=n_active,
                           n_init=1, max_outer=1, noise="isotropic").fit(data.Z)
    assert model.assignment_.n_active == n_active
    for codes in (model.codes_, model.encode(data.Z[:7])):
        assert (codes.gates.sum(axis=1) == n_active).all()
        assert ((codes.assignments > 0.0).sum(axis=1) == n_active).all()
