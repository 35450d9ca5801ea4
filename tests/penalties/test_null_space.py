"""Priors that are flat somewhere: with the prior of their null space they are proper, exactly."""

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.penalties import (
    MatrixPenalty,
    NullSpacePrior,
    SheafConsistencyPenalty,
    TotalVariationPenalty,
    _edges,
    check_penalty,
)
from tests.penalties.cases import CASES

RNG = np.random.default_rng(0)
CHAIN = [[0, 1], [1, 2], [2, 3]]
APART = [[0, 1], [2, 3]]


def sheaf(edges, d, rank, n_nodes, uniform):
    """Restrictions of a rank below d leave more than the sections of the graph free."""
    maps = RNG.normal(size=(2, len(edges), rank, d))
    if uniform:
        maps[:] = maps[0, 0]
    return SheafConsistencyPenalty(edges=edges, restrictions_u=maps[0], restrictions_v=maps[1],
                                   n_nodes=n_nodes)


SHEAVES = [sheaf(edges, d, rank, n_nodes, uniform)
           for edges in (CHAIN, APART, [*CHAIN, [3, 0]]) for d, rank in ((1, 1), (2, 2), (2, 1))
           for n_nodes in (4, 5) for uniform in (True, False)]


def dense(penalty, size):
    return np.array([penalty.hvp(np.zeros(size), penalty.initial_rho(), e) for e in np.eye(size)])


@pytest.mark.parametrize("penalty", SHEAVES)
def test_the_normaliser_of_a_gaussian(penalty):
    n, d = penalty.n_rows_expected(), penalty.width()
    projector = penalty.null_space(n)
    curvature, log_partition = dense(penalty, n * d), penalty.log_partition(np.zeros(1), n)[0]
    if projector is not None:
        prior = NullSpacePrior(projector=projector)
        np.testing.assert_allclose(curvature @ dense(prior, n * d), 0.0, atol=1e-9)
        curvature += dense(prior, n * d)
        log_partition += prior.log_partition(np.zeros(0), n)[0]
    sign, logdet = np.linalg.slogdet(curvature)
    assert sign > 0
    assert log_partition == pytest.approx(0.5 * (n * d * np.log(2.0 * np.pi) - logdet), abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"difference": "graph_edges", "edges": [[0, 2]],
                                          "n_nodes": 3}])
def test_the_normaliser_of_total_variation(options):
    penalty = TotalVariationPenalty(latent_dim=1, eps=0.5, weight=2.0, **options)
    prior = NullSpacePrior(projector=penalty.null_space(3))
    x = np.linspace(-9.0, 9.0, 121)
    a, b, c = np.meshgrid(x, x, x, sparse=True)

    def step(u, v):
        return 2.0 * (np.hypot(v - u, 0.5) - 0.5)

    if options:
        exponent = step(a, c) + (a + c) ** 2 / 4.0 + b**2 / 2.0
    else:
        exponent = step(a, b) + step(b, c) + (a + b + c) ** 2 / 6.0
    t = x[[62, 51, 70]]
    at_t = penalty.value(t, np.zeros(1)) + prior.value(t, np.zeros(0))
    assert exponent[51, 62, 70] == pytest.approx(at_t, rel=1e-12)
    total = np.log(np.exp(-exponent).sum()) + 3.0 * np.log(x[1] - x[0])
    expected = penalty.log_partition(np.zeros(1), 3)[0] + prior.log_partition(np.zeros(0), 3)[0]
    assert total == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.penalty, MatrixPenalty)
                                  and case.penalty.acts_on() == "coordinates"
                                  and case.penalty.is_normalised], ids=lambda case: case.name)
def test_every_prior_of_coordinates_is_proper(case):
    """Where the normaliser leaves directions out, they are those of the null space."""
    n, d = case.penalty.rows(case.target).shape
    curvature = np.array([case.penalty.psd_majorizer_hvp(case.target, case.at_rho, e)
                          for e in np.eye(n * d)])
    projector = case.penalty.null_space(n)
    if projector is not None:
        prior = NullSpacePrior(projector=projector)
        assert check_penalty(prior, case.target, np.zeros(0)).passed
        curvature += dense(prior, n * d)
        flat = projector.matvec(RNG.normal(size=(n, d)))
        moved = case.penalty.value(case.target + flat, case.at_rho)
        assert moved == pytest.approx(case.penalty.value(case.target, case.at_rho), rel=1e-9)
    assert np.linalg.eigvalsh(curvature)[0] > 1e-6


def test_too_many_parts(monkeypatch):
    monkeypatch.setattr(_edges, "MOST_ENTRIES", 7)
    with pytest.raises(InputError, match="total_variation leaves 2 directions"):
        TotalVariationPenalty(latent_dim=1, difference="graph_edges", edges=APART).null_space(4)
