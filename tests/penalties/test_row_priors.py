"""Traps of the priors by row beyond the contract."""

import numpy as np
import pytest

from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import from_config
from reml_sae.penalties.row_priors import (
    AuxConditionalPriorPenalty,
    ParametricAuxConditionalPriorPenalty,
)

RNG = np.random.default_rng(31)
ROOT = RNG.normal(size=(5, 2, 2))
PRECISIONS = ROOT @ ROOT.transpose(0, 2, 1) + 0.2 * np.eye(2)
AUX = RNG.normal(size=(5, 3)) + 1.0


def with_entry(value, *index):
    out = PRECISIONS.copy()
    out[index] = value
    return out


def test_fixed_precisions_restricted_to_rows():
    penalty = AuxConditionalPriorPenalty(precisions=PRECISIONS, weight=2.0, learnable=False)
    index = np.array([3, 0])
    part = penalty.restrict(index, 5)
    assert part.n_rows_expected() == 2 and part.weight == 2.0 and not part.learnable
    t = RNG.normal(size=(5, 2))
    rho = np.zeros(0)
    np.testing.assert_allclose(part.row_values(t[index], rho), penalty.row_values(t, rho)[index])
    rest = penalty.restrict(np.array([1, 2, 4]), 5)
    assert part.log_partition(rho, 2)[0] + rest.log_partition(rho, 3)[0] == pytest.approx(
        penalty.log_partition(rho, 5)[0])


@pytest.mark.parametrize("learnable", [True, False])
def test_parametric_precisions_restricted_to_rows(learnable):
    """mu held at the centre must stay where all rows put it."""
    penalty = ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=2, learnable=learnable)
    index = np.array([4, 1])
    part = penalty.restrict(index, 5)
    t, rho = RNG.normal(size=(5, 2)), penalty.initial_rho()
    np.testing.assert_array_equal(part.initial_rho(), rho)
    np.testing.assert_allclose(part.row_values(t[index], rho), penalty.row_values(t, rho)[index])


@pytest.mark.parametrize("penalty", [
    AuxConditionalPriorPenalty(precisions=PRECISIONS),
    ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=2)],
    ids=lambda penalty: penalty.KIND_TAG)
def test_number_of_rows(penalty):
    rho = penalty.initial_rho()
    with pytest.raises(InputError, match="5 rows"):
        penalty.value(np.ones((4, 2)), rho)
    with pytest.raises(InputError, match="5 rows"):
        penalty.log_partition(rho, 4)
    with pytest.raises(InputError, match="5 rows"):
        penalty.restrict(np.arange(2), 6)
    nothing = penalty.restrict(np.zeros(0, np.intp), 5)
    assert nothing.value(np.zeros((0, 2)), rho) == 0.0
    assert nothing.log_partition(rho, 0)[0] == 0.0


def test_outer_parameters_of_the_parametric_prior():
    penalty = ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=2, weight=2.0)
    assert penalty.rho_count() == 2 + 2 + 6
    assert penalty.rho_labels() == (".alpha0", ".alpha1", ".b0", ".b1", ".mu0.0", ".mu0.1",
                                    ".mu0.2", ".mu1.0", ".mu1.1", ".mu1.2")
    start, bounds = penalty.initial_rho(), penalty.rho_bounds()
    assert bounds.shape == (10, 2)
    assert (bounds[:, 0] < start).all() and (start < bounds[:, 1]).all()
    np.testing.assert_allclose(start[4:7], AUX.mean(0))
    assert start[0] < start[1]  # equal axes could be rotated into each other
    start[:2] = 0.0
    np.testing.assert_allclose(penalty.strengths(start)[:4],
                               [2.0, 2.0, 2.0 * np.log(2.0), 2.0 * np.log(2.0)])
    held = ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=2, weight=2.0, learnable=False)
    assert held.rho_labels() == () and held.rho_bounds().shape == (0, 2)
    t = RNG.normal(size=(5, 2))
    assert held.value(t, np.zeros(0)) == pytest.approx(penalty.value(t, start))


def test_constant_aux_leaves_a_box():
    bounds = ParametricAuxConditionalPriorPenalty(aux=np.ones((4, 1)), latent_dim=1).rho_bounds()
    assert (bounds[:, 0] < bounds[:, 1]).all()


def test_range_of_the_parametric_rho():
    penalty = ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=1)
    t, start = RNG.normal(size=(5, 1)), penalty.initial_rho()
    for place, value in ((0, 701.0), (1, -701.0), (0, np.nan), (3, np.inf)):
        rho = start.copy()
        rho[place] = value
        with pytest.raises(InputError, match=r"rho.*700"):
            penalty.value(t, rho)
    far = start.copy()
    far[2:] = 1e4
    assert np.isfinite(penalty.value(t, far))
    with pytest.raises(InputError, match="rho must have 5"):
        penalty.value(t, np.zeros(2))


@pytest.mark.parametrize("strength", [-300.0, 300.0])
def test_extreme_strengths_of_the_parametric_prior(strength):
    penalty = ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=1)
    rho = penalty.initial_rho()
    rho[:2] = strength
    t = RNG.normal(size=(5, 1))
    assert np.isfinite(penalty.value(t, rho))
    assert np.isfinite(penalty.grad_rho(t, rho)).all()


@pytest.mark.parametrize("values, field", [
    ({"precisions": np.ones((2, 2))}, "precisions"),
    ({"precisions": np.ones((2, 2, 3))}, "precisions"),
    ({"precisions": np.zeros((2, 0, 0))}, "precisions"),
    ({"precisions": "no"}, "precisions"),
    ({"precisions": with_entry(np.nan, 1, 0, 0)}, r"precisions\[1, 0, 0\]"),
    ({"precisions": with_entry(9.0, 2, 0, 1)}, r"precisions\[2\]"),
    ({"precisions": with_entry(-1.0, 3, 1, 1)}, r"precisions\[3\]"),
    ({"precisions": with_entry(0.0, 4)}, r"precisions\[4\]"),
    ({"precisions": PRECISIONS, "weight": 0.0}, "weight"),
])
def test_wrong_fixed_precisions(values, field):
    check_message(AuxConditionalPriorPenalty, values, field)


@pytest.mark.parametrize("values, field", [
    ({"aux": np.ones(3), "latent_dim": 1}, "aux"),
    ({"aux": np.ones((3, 0)), "latent_dim": 1}, "aux"),
    ({"aux": np.ones((0, 3)), "latent_dim": 1}, "aux"),
    ({"aux": [[1.0, np.inf]], "latent_dim": 1}, r"aux\[0, 1\]"),
    ({"aux": AUX, "latent_dim": 0}, "latent_dim"),
    ({"aux": AUX, "latent_dim": 1, "centre": [0.0]}, "centre"),
    ({"aux": AUX, "latent_dim": 1, "learnable": "yes"}, "learnable"),
])
def test_wrong_parametric_precisions(values, field):
    check_message(ParametricAuxConditionalPriorPenalty, values, field)


def check_message(cls, values, field):
    with pytest.raises(InputError, match=f"^{field}"):
        cls(**values)
    with pytest.raises(RegistryError, match=field):
        from_config({"kind": cls.KIND_TAG, **values})
