"""Which continuous symmetries of the atoms the penalties of a model keep."""

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.manifolds import Circle, Euclidean
from reml_sae.models import bind_penalty
from reml_sae.models.sae.gauge import kept_symmetries, log_volume
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
