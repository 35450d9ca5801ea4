"""Determinants and bases of sums of penalties, and covariances, at ordinary and extreme values."""

from fractions import Fraction
from math import log

import numpy as np
import pytest

from reml_sae.models.mixed.covariance import Covariance, EffectsPrior
from reml_sae.models.mixed.smooths import Smooth, SmoothPrior, bind_smooths, graded_sum
from tests.models.mixed.systems import ordinary


def exact_log_det(matrices, powers):
    """log |sum_j 2^powers_j S_j| of integer matrices, by exact elimination."""
    k = len(matrices[0])
    rows = [[sum(Fraction(2) ** power * int(S[i, j])
                 for S, power in zip(matrices, powers, strict=True)) for j in range(k)]
            for i in range(k)]
    det = Fraction(1)
    for i in range(k):
        pivot = rows[i][i]
        det *= pivot
        for r in range(i + 1, k):
            share = rows[r][i] / pivot
            rows[r] = [a - share * b for a, b in zip(rows[r], rows[i], strict=True)]
    return log(det.numerator) - log(det.denominator)


POWERS = [(0, 0), (3, -2), (33, 0), (0, 33), (-40, 40), (70, -70), (120, -120), (-300, 300)]


@pytest.mark.parametrize("powers", POWERS)
def test_full_rank_sum(powers):
    matrices = [ordinary(7, 2).astype(int), np.eye(7, dtype=int)]
    found = graded_sum(np.stack(matrices).astype(float), np.log(2.0) * np.array(powers))
    assert found.rank == 7
    assert found.log_det == pytest.approx(exact_log_det(matrices, powers), rel=1e-13, abs=1e-11)
    assert found.log_det_gradient.sum() == pytest.approx(7.0, rel=1e-12)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(7), atol=1e-13)


@pytest.mark.parametrize("powers", POWERS)
def test_sum_with_a_null_space(powers):
    # differences of every order annihilate constants; 1 1^T has the eigenvalue k there
    matrices = [ordinary(6, 1).astype(int), ordinary(6, 3).astype(int)]
    found = graded_sum(np.stack(matrices).astype(float), np.log(2.0) * np.array(powers))
    assert found.rank == 5
    with_ones = [*matrices, np.ones((6, 6), int)]
    expected = exact_log_det(with_ones, (*powers, 0)) - log(6.0)
    assert found.log_det == pytest.approx(expected, rel=1e-13, abs=1e-11)
    np.testing.assert_allclose(np.abs(found.basis[:, 5]), np.sqrt(1 / 6), rtol=1e-10)
    assert (found.parts[:, 5, :] == 0).all()


@pytest.mark.parametrize("powers", POWERS)
def test_gradient_of_the_determinant(powers):
    matrices = [ordinary(6, 1).astype(int), ordinary(6, 3).astype(int), np.eye(6, dtype=int)]
    powers = (*powers, -1)
    found = graded_sum(np.stack(matrices).astype(float), np.log(2.0) * np.array(powers))
    for j in range(3):
        def at(k, j=j):
            # powers of two keep the determinant exact: halve and double is a step of log 2
            moved = np.log(2.0) * np.array(powers)
            moved[j] += 1e-3 * k
            return graded_sum(np.stack(matrices).astype(float), moved).log_det
        slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / 12e-3
        assert found.log_det_gradient[j] == pytest.approx(slope, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("powers", [(0, 0), (5, -4), (20, -10)])
def test_graded_matrix_is_the_sum(powers):
    smooths = bind_smooths([Smooth([4, 1, 2, 5], [ordinary(4, 1), ordinary(4, 2)])], 6)
    prior = SmoothPrior(smooths, 6, np.log(2.0) * np.array(powers))
    back = prior.basis @ prior.graded_matrix() @ prior.basis.T
    plain = np.zeros((6, 6))
    where = np.ix_([4, 1, 2, 5], [4, 1, 2, 5])
    plain[where] = np.tensordot(prior.strengths, smooths[0].matrices, 1)
    np.testing.assert_allclose(prior.matrix(), plain, atol=1e-13 * np.abs(back).max())
    np.testing.assert_allclose(back, plain, atol=1e-13 * np.abs(back).max())
    assert prior.penalised.sum() == 3 and not prior.penalised[[0, 3]].any()
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6))
    np.testing.assert_allclose(prior.energies(a, b).sum(), a @ prior.matrix() @ b, rtol=1e-12)
    np.testing.assert_allclose(prior.apply(a), prior.matrix() @ a, rtol=1e-12)
    root = rng.normal(size=(6, 6))
    G = root @ root.T
    expected = [strength * np.trace(G[where] @ S)
                for strength, S in zip(prior.strengths, smooths[0].matrices, strict=True)]
    np.testing.assert_allclose(prior.traces(prior.basis.T @ G @ prior.basis), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_covariance_against_dense_matrices(kind):
    rng = np.random.default_rng(0)
    terms = (Covariance(kind, ("a", "b", "c"), np.array([1.0, 2.0, 0.5])),
             Covariance("diagonal", ("d",), np.array([3.0])))
    rho = 0.7 * rng.normal(size=sum(len(term.labels) for term in terms))
    found = EffectsPrior.of(terms, rho)
    psi = found.covariance
    assert found.log_det == pytest.approx(np.linalg.slogdet(psi)[1], rel=1e-12, abs=1e-12)
    assert (psi[:3, 3] == 0).all()
    b, u = rng.normal(size=(2, 5, 4))
    P = np.linalg.inv(psi)
    np.testing.assert_allclose(found.precision_times(b), b @ P, rtol=1e-10)
    roots = rng.normal(size=(5, 4, 4))
    G = roots @ roots.transpose(0, 2, 1)
    L = found.factor
    spherical = np.linalg.solve(L, G) @ np.linalg.inv(L).T
    for m in range(len(rho)):
        def at(k, m=m):
            moved = rho.copy()
            moved[m] += 1e-3 * k
            return EffectsPrior.of(terms, moved)
        slope = (8 * (np.linalg.inv(at(1).covariance) - np.linalg.inv(at(-1).covariance))
                 - (np.linalg.inv(at(2).covariance) - np.linalg.inv(at(-2).covariance))) / 12e-3
        assert found.energies(b, u)[m] == pytest.approx(np.einsum("ga,ab,gb->", b, slope, u),
                                                        rel=1e-8)
        assert found.traces(spherical)[m] == pytest.approx(np.einsum("gab,ba->", G, slope),
                                                           rel=1e-8)
        change = (8 * (at(1).log_det - at(-1).log_det) - (at(2).log_det - at(-2).log_det)) / 12e-3
        assert found.log_det_gradient[m] == pytest.approx(change, abs=1e-9)


def test_labels_say_what_they_are():
    full = Covariance("full", ("u", "v"), np.ones(2))
    assert full.labels == ("log_precision[u]", "log_precision[v]", "factor[v,u]")
    assert Covariance("diagonal", ("u", "v"), np.ones(2)).labels == full.labels[:2]
    assert full.bounds.shape == (3, 2) and not full.is_quadratic.any()
