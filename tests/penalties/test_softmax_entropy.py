"""Entropy penalty: every derivative against finite differences, the majorizer by eigenvalues."""

import numpy as np
import pytest
from scipy.special import softmax

from reml_sae.errors import InputError
from reml_sae.penalties import SoftmaxAssignmentSparsityPenalty

RHO = np.array([0.3])
STEP = 1e-5
SIZES = [(2, 1.0), (3, 0.7), (5, 2.0)]


def make(k, tau=1.0, n=6, seed=0):
    rng = np.random.default_rng(seed)
    penalty = SoftmaxAssignmentSparsityPenalty(k_atoms=k, temperature=tau)
    return penalty, rng.normal(size=(n, k)), rng


def difference(function, x, v):
    return (8 * (function(x + STEP * v) - function(x - STEP * v))
            - (function(x + 2 * STEP * v) - function(x - 2 * STEP * v))) / (12 * STEP)


def assert_close(found, expected, tolerance=1e-7):
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * scale


def test_value_is_the_entropy():
    penalty, z, _ = make(4, 0.7)
    a = softmax(z / 0.7, axis=1)
    assert penalty.value(z, RHO) == pytest.approx(-np.exp(0.3) * (a * np.log(a)).sum(), rel=1e-13)


@pytest.mark.parametrize(("k", "tau"), SIZES)
def test_gradient_hessian_and_hvp(k, tau):
    penalty, z, rng = make(k, tau)
    v = rng.normal(size=z.shape)
    assert_close(penalty.grad_target(z, RHO) @ v.ravel(),
                 difference(lambda x: penalty.value(x, RHO), z, v))
    along = difference(lambda x: penalty.grad_target(x, RHO), z, v)
    assert_close(penalty.hvp(z, RHO, v.ravel()), along)
    dense = penalty.row_dense_hessian(z, RHO)
    assert_close(np.einsum("nab,nb->na", dense, v).ravel(), along)
    assert np.abs(dense.sum(axis=2)).max() < 1e-14


@pytest.mark.parametrize(("k", "tau"), SIZES)
@pytest.mark.parametrize(("matrix", "tensor"), [
    ("row_dense_hessian", "row_dense_hessian_logit_derivative"),
    ("row_psd_majorizer", "row_psd_majorizer_logit_derivative"),
    ("row_fisher_metric", "row_fisher_metric_logit_derivative"),
])
def test_derivative_tensors(k, tau, matrix, tensor):
    penalty, z, rng = make(k, tau)
    v = rng.normal(size=z.shape)
    expected = difference(lambda x: getattr(penalty, matrix)(x, RHO), z, v)
    found = np.einsum("n...w,nw->n...", getattr(penalty, tensor)(z, RHO), v)
    assert_close(found, expected)


@pytest.mark.parametrize(("k", "tau"), SIZES)
@pytest.mark.parametrize("kind", ["blocks", "majorizer"])
def test_pullbacks(k, tau, kind):
    penalty, z, rng = make(k, tau)
    v, weights = rng.normal(size=z.shape), rng.normal(size=(*z.shape, k))
    weights = weights + weights.transpose(0, 2, 1)
    forward, pullback = getattr(penalty, f"row_{kind}"), getattr(penalty, f"row_{kind}_vjp")
    expected = difference(lambda x: (forward(x, RHO) * weights).sum(), z, v)
    assert_close((pullback(z, RHO, weights) * v).sum(), expected)


@pytest.mark.parametrize("k", [2, 3, 5, 16, 64])
def test_majorizers_majorize(k):
    penalty, _, rng = make(k)
    for spread in np.repeat([0.1, 1.0, 5.0, 10.0, 30.0], 4):  # the last are near the vertices
        logits = spread * rng.normal(size=(500, k))
        hessian = penalty.row_dense_hessian(logits, RHO)
        hard = penalty.row_psd_majorizer(logits, RHO)[:, :, None] * np.eye(k)
        for majorizer in (hard, penalty.row_majorizer(logits, RHO)):
            scale = np.maximum(np.abs(majorizer).max(axis=(1, 2)), 1e-300)
            assert (np.linalg.eigvalsh(majorizer - hessian)[:, 0] / scale).min() > -1e-12
            assert (np.einsum("naa->na", majorizer) >= 0).all()
        assert_close(penalty.psd_majorizer_abs_row_sums(logits, RHO),
                     np.einsum("naa->na", hard).ravel(), 1e-14)


def test_fisher_metric_is_not_a_majorizer():
    penalty = SoftmaxAssignmentSparsityPenalty(k_atoms=2)
    z = np.log([[0.95, 0.05]])
    assert penalty.row_fisher_metric(z, [0.0])[0, 0, 0] == pytest.approx(0.0475, abs=1e-12)
    assert penalty.row_dense_hessian(z, [0.0])[0, 0, 0] == pytest.approx(0.0784, abs=5e-5)


def test_extreme_logits_stay_finite():
    penalty = SoftmaxAssignmentSparsityPenalty(k_atoms=3)
    z = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [0.0, 1e4, 1e4]])
    for method in ("row_values", "row_gradient", "row_dense_hessian", "row_psd_majorizer",
                   "row_dense_hessian_logit_derivative", "row_psd_majorizer_logit_derivative",
                   "row_fisher_metric_logit_derivative", "row_majorizer"):
        assert np.isfinite(getattr(penalty, method)(z, RHO)).all(), method


@pytest.mark.parametrize("wrong", [{"k_atoms": 0}, {"k_atoms": 2, "temperature": 0.0},
                                   {"k_atoms": 2, "weight": -1.0}, {"k_atoms": 2.5}])
def test_wrong_parameters(wrong):
    with pytest.raises(InputError, match=list(wrong)[-1]):
        SoftmaxAssignmentSparsityPenalty(**wrong)


def test_wrong_target_width():
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        SoftmaxAssignmentSparsityPenalty(k_atoms=3).value(np.zeros((4, 2)), RHO)
