"""Which continuous symmetries of the atoms the penalties of a model keep."""

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.manifolds import Circle, Euclidean
from reml_sae.models import bind_penalty
from reml_sae.models.sae.gauge import at_its_phase, kept_symmetries, log_volume
from reml_sae.models.sae.mixture import Layout

N, P = 6, 4
SPACE, RING = Euclidean(3, 2), Circle(2)
AUX = np.random.default_rng(0).normal(size=(N, 2)).tolist()
CHAIN = [[i, i + 1] for i in range(N - 1)]


def kept(atom, *penalties):
    layout = Layout([atom])
    terms = [term for penalty in penalties for term in bind_penalty(penalty, [atom], P)]
    return kept_symmetries(layout, terms, N, P)


@pytest.mark.parametrize(("penalty", "expected"), [
    (pen.ARDPenalty(latent_dim=3), 0),
    (pen.ARDPenalty(latent_dim=3, learnable=False), 3),
    (pen.SparsityPenalty(latent_dim=3), 0),
    (pen.NuclearNormPenalty(latent_dim=3), 3),
    (pen.OrthogonalityPenalty(latent_dim=3), 3),
    (pen.BlockSparsityPenalty(groups=[[0, 2], [1]]), 1),
    (pen.BlockOrthogonalityPenalty(groups=[[0], [1, 2]]), 1),
    (pen.IvaeRidgeMeanGauge(latent_dim=3, aux=AUX), 3),
    (pen.AuxConditionalPriorPenalty(precisions=np.tile(np.eye(3), (N, 1, 1))), 3),
    (pen.AuxConditionalPriorPenalty(precisions=np.tile(np.diag([1.0, 2, 2]), (N, 1, 1))), 1),
    (pen.SheafConsistencyPenalty(edges=CHAIN, restrictions_u=np.ones((5, 1, 1)) * np.eye(3),
                                 restrictions_v=np.ones((5, 1, 1)) * np.eye(3)), 3),
    (pen.TotalVariationPenalty(latent_dim=3), 0),
    (pen.QuadraticPenalty(S=SPACE.roughness()), 3),
    (pen.QuadraticPenalty(S=np.diag(np.arange(10.0))), 0),
], ids=lambda value: getattr(value, "KIND_TAG", value))
def test_rotations_of_space(penalty, expected):
    assert len(kept(SPACE, penalty)) == expected


@pytest.mark.parametrize(("penalty", "expected"), [
    (pen.HarmonicRoughnessPenalty(period=5), 1),
    (pen.NuclearNormPenalty(latent_dim=5, target="decoder"), 1),
    (pen.SparsityPenalty(target="decoder"), 0),
    (pen.MechanismSparsityPenalty(feature_groups=[[0, 1], [2, 3]]), 0),
], ids=lambda value: getattr(value, "KIND_TAG", value))
def test_rotations_of_a_circle(penalty, expected):
    assert len(kept(RING, penalty)) == expected


def test_one_penalty_that_breaks_is_enough():
    assert not kept(SPACE, pen.OrthogonalityPenalty(latent_dim=3), pen.ARDPenalty(latent_dim=3))


def test_volume_of_a_subgroup():
    all_three = kept(SPACE)
    one = kept(SPACE, pen.BlockSparsityPenalty(groups=[[0, 2], [1]]))
    assert log_volume([SPACE], all_three) == pytest.approx(np.log(8 * np.pi**2))
    assert log_volume([SPACE], one) == pytest.approx(np.log(2 * np.pi))


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1e6])
def test_a_covariance_at_its_phase_does_not_know_the_weight_of_the_gauge(weight):
    """It is that of the complement of the orbit's tangents, from dense matrices."""
    m, p, c = 4, 3, 2
    rng = np.random.default_rng(5)
    root, tangents = rng.normal(size=(m * p, m * p)), rng.normal(size=(c, m, p))
    flat = tangents.reshape(c, -1).T
    curvature = root @ root.T
    free = np.linalg.svd(flat)[0][:, c:]
    expected = free @ np.linalg.inv(free.T @ curvature @ free) @ free.T
    G = np.linalg.inv(curvature + weight * flat @ flat.T)
    found = at_its_phase(np.einsum("aobo->oab", G.reshape(m, p, m, p)), tangents,
                         (G @ flat).T.reshape(tangents.shape))
    np.testing.assert_allclose(found, np.einsum("aobo->oab", expected.reshape(m, p, m, p)),
                               atol=1e-8)


def test_an_atom_of_no_size_has_no_phase():
    G, nothing = np.ones((3, 2, 2)), np.zeros((1, 2, 3))
    np.testing.assert_array_equal(at_its_phase(G, nothing, nothing), G)
