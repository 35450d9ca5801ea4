"""Functions of the Gram matrix: normalisers, ties, caps, majorizers, memory, wrong parameters."""

import tracemalloc

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import gammaln, multigammaln

from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import _smooth_l1, check_penalty, from_config
from reml_sae.penalties._nuclear_partition import (
    _panels,
    log_nuclear_partition,
    log_spectral_integral,
)
from reml_sae.penalties._smooth_l1 import log_smooth_l1_partition
from reml_sae.penalties.decoder_incoherence import DecoderIncoherencePenalty
from reml_sae.penalties.group_sparsity import BlockSparsityPenalty, MechanismSparsityPenalty
from reml_sae.penalties.nuclear_norm import NuclearNormPenalty
from reml_sae.penalties.orthogonality import BlockOrthogonalityPenalty, OrthogonalityPenalty
from tests.penalties.cases.gram import CASES, TIED

NONE = np.zeros(0)
ONE = np.zeros(1)


def slope_by_differences(function, w, step=1e-2):
    at = [function(w * np.exp(k * step)) for k in (-2, -1, 1, 2)]
    return (8.0 * (at[2] - at[1]) - (at[3] - at[0])) / (12.0 * step)


# --- normalisers ------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 8])
@pytest.mark.parametrize("c, eps", [(0.3, 1e-3), (2.0, 0.5), (5.0, 20.0)])
def test_smooth_l1_against_the_radial_integral(m, c, eps):
    # area of the sphere times int r^{m-1} exp(-c (sqrt(r^2 + eps^2) - eps)) dr
    log_area = np.log(2.0) + 0.5 * m * np.log(np.pi) - gammaln(0.5 * m)
    far = 60.0 / c + np.sqrt(120.0 * eps / c)
    radial = quad(lambda r: r ** (m - 1) * np.exp(-c * (np.hypot(r, eps) - eps)), 0.0, far,
                  points=[eps, min(1.0 / c, far)], epsabs=0.0, epsrel=1e-11, limit=200)[0]
    found = log_smooth_l1_partition(m, c, eps)[0]
    assert found == pytest.approx(log_area + np.log(radial) - c * eps, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("m", [80, 200, 1000])
def test_smooth_l1_expansion_agrees_with_the_recurrence(m, monkeypatch):
    cases = [(c, eps) for c in (1e-5, 1.0, 1e7) for eps in (1e-6, 1e-3, 10.0)]
    uniform = [log_smooth_l1_partition(m, *case) for case in cases]
    monkeypatch.setattr(_smooth_l1, "LARGE_ORDER", np.inf)
    for case, found in zip(cases, uniform, strict=True):
        np.testing.assert_allclose(found, log_smooth_l1_partition(m, *case), rtol=1e-11)


@pytest.mark.parametrize("m", [1, 7, 10**3, 10**5, 10**6])
def test_smooth_l1_over_all_strengths(m):
    for c in (1e-5, 1e-2, 1.0, 1e3, 1e7):
        value, slope = log_smooth_l1_partition(m, c, 1e-3)
        assert np.isfinite(value)
        expected = slope_by_differences(lambda w: log_smooth_l1_partition(m, w, 1e-3)[0], c)
        assert slope == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 100_000])
def test_one_singular_value_is_the_smooth_l1_norm(n):
    for w in (1e-5, 1.0, 1e3, 1e7):
        for eps in (1e-6, 1e-3, 1.0):
            expected = np.array(log_smooth_l1_partition(n, w, eps)) + w * eps
            scale = 1e-12 * max(w * eps, 1.0)
            np.testing.assert_allclose(log_nuclear_partition(n, 1, w, eps), expected,
                                       rtol=1e-11, atol=scale)
            np.testing.assert_allclose(log_nuclear_partition(1, n, w, eps), expected,
                                       rtol=1e-11, atol=scale)


@pytest.mark.parametrize("n, d", [(2, 2), (3, 2), (5, 3), (8, 8), (8, 9), (100_000, 8), (64, 64)])
def test_spectral_integral_of_a_gaussian(n, d):
    small, large = sorted((n, d))
    centre = np.sqrt(large)
    lower = max(centre - np.sqrt(small) - 14.0, 0.0)
    s, weights, cumulative = _panels(lower, centre + np.sqrt(small) + 14.0, 64 + 4 * small)
    value, slope = log_spectral_integral(
        n, d, np.log(s), (large - small) * np.log(s) - 0.5 * s**2, 0.5 * s**2, weights, cumulative)
    assert value == pytest.approx(0.5 * n * d * np.log(2.0 * np.pi), rel=1e-13)
    assert slope == pytest.approx(-0.5 * n * d, rel=1e-12)


@pytest.mark.parametrize("n, d, w, eps", [(2, 2, 1.3, 0.5), (4, 2, 0.7, 0.1), (2, 5, 2.0, 1.0)])
def test_nuclear_partition_of_two_singular_values(n, d, w, eps):
    large = max(n, d)
    log_constant = (2.0 * np.log(2.0) + (large + 2.0) * np.log(np.pi)
                    - multigammaln(0.5 * large, 2) - multigammaln(1.0, 2))

    def density(s):
        return s ** (large - 2) * np.exp(-w * (np.hypot(s, eps) - eps))

    integral = dblquad(lambda s, t: (t**2 - s**2) * density(s) * density(t), 0.0, 60.0 / w,
                       0.0, lambda t: t, epsabs=0.0, epsrel=1e-9)[0]
    assert log_nuclear_partition(n, d, w, eps)[0] == pytest.approx(
        log_constant + np.log(integral), abs=1e-8)


def test_nuclear_partition_by_monte_carlo():
    """Draws of 2 x 2 matrices from exp(-w ||T||_F), whose integral over R^4 is 12 pi^2 / w^4."""
    rng, w, eps = np.random.default_rng(0), 1.3, 0.4
    T = rng.normal(size=(100_000, 4))
    radius = rng.gamma(4.0, size=len(T)) / w
    T *= (radius / np.linalg.norm(T, axis=1))[:, None]
    sigma = np.linalg.svd(T.reshape(-1, 2, 2), compute_uv=False)
    ratio = np.exp(w * radius - w * (np.hypot(sigma, eps) - eps).sum(1))
    error = ratio.std() / ratio.mean() / np.sqrt(len(T))
    expected = np.log(12.0 * np.pi**2 / w**4 * ratio.mean())
    assert error < 5e-3
    assert abs(log_nuclear_partition(2, 2, w, eps)[0] - expected) < 4.0 * error


@pytest.mark.parametrize("n, d", [(2, 2), (7, 8), (8, 8), (100_000, 8), (4096, 21), (40, 40)])
@pytest.mark.parametrize("w, eps", [(1e-5, 1e-6), (1.0, 1e-3), (30.0, 1.0), (1e7, 10.0)])
def test_nuclear_partition_slope(n, d, w, eps):
    value, slope = log_nuclear_partition(n, d, w, eps)
    assert np.isfinite(value)
    expected = slope_by_differences(lambda w: log_nuclear_partition(n, d, w, eps)[0], w)
    assert slope == pytest.approx(expected, rel=1e-9)


def test_nuclear_partition_at_the_ends_of_rho():
    # one end is homogeneous of degree one, the other Gaussian
    assert log_nuclear_partition(300, 4, np.exp(-700.0), 1.0)[1] == pytest.approx(-1200.0)
    assert log_nuclear_partition(300, 4, np.exp(700.0), 1.0)[1] == pytest.approx(-600.0)


# --- curvature --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("which", ["exact", "majorizer"])
def test_curvature_is_the_operator_of_the_products(case, which):
    penalty, rng = case.penalty, np.random.default_rng(0)
    dense = penalty.curvature(case.target, case.at_rho, which)
    v = rng.normal(size=case.target.size)
    product = penalty.hvp if which == "exact" else penalty.psd_majorizer_hvp
    np.testing.assert_allclose(product(case.target, case.at_rho, v),
                               penalty.flat(dense.matvec(penalty.rows(v))), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if not case.penalty.is_normalised
                                  and case.variant != "capped"], ids=lambda case: case.name)
def test_both_parts_of_the_curvature_are_majorized(case):
    rng = np.random.default_rng(10)
    for scale in (1e-2, 1.0, 30.0):
        T = case.penalty.rows(scale * rng.normal(size=case.target.shape))
        for part in (case.penalty.gram_first, case.penalty.gram_core):
            exact, majorizer = (part(T, which) for which in ("exact", "majorizer"))
            if not isinstance(exact, np.ndarray):
                exact, majorizer = exact.toarray(), majorizer.toarray()
            size = np.abs(majorizer).max()
            assert np.linalg.eigvalsh(majorizer).min() > -1e-12 * size
            assert np.linalg.eigvalsh(majorizer - exact).min() > -1e-12 * size


def test_derivatives_at_tied_singular_values():
    for penalty in (NuclearNormPenalty(latent_dim=3, eps=0.3),
                    NuclearNormPenalty(latent_dim=5, eps=0.3)):
        target = np.pad(TIED, ((0, 0), (0, penalty.latent_dim - 3)))
        report = check_penalty(penalty, target, ONE)
        assert report.passed, str(report)


def test_capped_derivatives_with_ties_on_either_side():
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(size, 4)))[0] for size in (6, 4))
    target = (left * [2.0, 2.0, 0.7, 0.7]) @ right.T
    report = check_penalty(NuclearNormPenalty(latent_dim=4, eps=0.3, max_rank=2), target, NONE)
    assert report.passed, str(report)


def test_midpoint_rule_at_the_cap():
    """Where the cap cuts a tie, gradient and Hessian-free part are the mean over the choices."""
    penalty = NuclearNormPenalty(latent_dim=3, eps=0.3, max_rank=2)
    target = np.diag([2.0, 1.0, 1.0])
    gradient = penalty.grad_target(target, NONE).reshape(3, 3)
    slopes = np.array([2.0 / np.hypot(2.0, 0.3), 0.5 / np.hypot(1.0, 0.3),
                       0.5 / np.hypot(1.0, 0.3)])
    np.testing.assert_allclose(gradient, np.diag(slopes), atol=1e-14)
    one_sided = [penalty.grad_target(target + 1e-6 * np.diag(side), NONE)
                 for side in ([0, 1.0, 0], [0, 0, 1.0])]
    np.testing.assert_allclose(gradient.ravel(), np.mean(one_sided, axis=0), atol=1e-5)
    # a subgradient, and a Hessian that is positive semidefinite
    rng = np.random.default_rng(2)
    for other in target + 0.3 * rng.normal(size=(50, 3, 3)):
        slack = (penalty.value(other, NONE) - penalty.value(target, NONE)
                 - np.vdot(gradient, other - target))
        assert slack > -1e-12
    hessian = np.array([penalty.hvp(target, NONE, e) for e in np.eye(9)])
    assert np.linalg.eigvalsh(hessian).min() > -1e-12
    assert not penalty.is_smooth and not penalty.is_normalised
    assert NuclearNormPenalty(latent_dim=3, max_rank=3).is_smooth


def test_small_singular_values_are_not_lost():
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.normal(size=(size, 2)))[0] for size in (50, 2))
    eps = 1e-6
    penalty = NuclearNormPenalty(latent_dim=2, eps=eps)
    target = (left * [1e4, 1e-6]) @ right.T
    expected = np.hypot(1e4, eps) + np.hypot(1e-6, eps) - 2.0 * eps
    assert penalty.value(target, ONE) == pytest.approx(expected, rel=1e-14)
    along = np.outer(left[:, 1], right[:, 1]).ravel()
    assert along @ penalty.hvp(target, ONE, along) == pytest.approx(
        eps**2 / np.hypot(1e-6, eps) ** 3, rel=1e-4)


def test_wide_decoder_works_through_its_small_gram():
    basis, p = 8, 4096
    penalty = NuclearNormPenalty(latent_dim=basis, target="decoder")
    target = np.random.default_rng(4).normal(size=(basis, p))
    tracemalloc.start()
    penalty.value(target, ONE)
    penalty.hvp(target, ONE, penalty.grad_target(target, ONE))
    penalty.psd_majorizer_diag(target, ONE)
    products = tracemalloc.get_traced_memory()[1]
    penalty.curvature(target, ONE, "majorizer")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns = basis * (basis + 1) // 2
    assert products < 12 * target.nbytes
    assert peak < 4 * columns * target.nbytes < p * p * 8
    assert penalty.tier().value == "beta" and penalty.by_output()


def test_diagonal_of_block_orthogonality_is_no_majorizer():
    penalty = BlockOrthogonalityPenalty(groups=[[0], [1]])
    target = np.ones((2, 2))
    hessian = np.array([penalty.hvp(target, NONE, e) for e in np.eye(4)])
    majorizer = np.array([penalty.psd_majorizer_hvp(target, NONE, e) for e in np.eye(4)])
    assert np.linalg.eigvalsh(np.diag(np.diagonal(hessian)) - hessian).min() < -1.0
    assert np.linalg.eigvalsh(majorizer - hessian).min() > -1e-12
    assert np.linalg.eigvalsh(hessian).min() < -0.5


def test_orthogonality_does_not_grow_with_the_rows():
    target = np.random.default_rng(5).normal(size=(20, 3))
    penalty = OrthogonalityPenalty(latent_dim=3)
    assert penalty.value(np.tile(target, (50, 1)), NONE) == pytest.approx(
        penalty.value(target, NONE), rel=1e-12)


@pytest.mark.parametrize("penalty, invariant", [
    (NuclearNormPenalty(latent_dim=3, eps=0.3), True),
    (NuclearNormPenalty(latent_dim=3, eps=0.3, max_rank=2, target="decoder"), True),
    (OrthogonalityPenalty(latent_dim=3), True),
    (BlockSparsityPenalty(groups=[[0, 1, 2]]), True),
    (BlockSparsityPenalty(groups=[[0, 1], [2]]), False),
    (BlockOrthogonalityPenalty(groups=[[0, 1], [2]]), False),
], ids=lambda item: getattr(item, "KIND_TAG", item))
def test_rotation_of_the_latent_axes(penalty, invariant):
    rng = np.random.default_rng(6)
    rho, view = penalty.initial_rho(), rng.normal(size=(7, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    value = penalty.value(penalty.flat(view), rho)
    turned = penalty.value(penalty.flat(view @ rotation), rho)
    assert np.isclose(turned, value, rtol=1e-12) == invariant


def test_incoherence_has_the_gauges_of_each_atom():
    rng = np.random.default_rng(7)
    penalty, target = DecoderIncoherencePenalty(block_sizes=(3, 1)), rng.normal(size=(4, 5))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = np.concatenate([rotation @ target[:3], -3.0 * target[3:]])
    assert penalty.value(turned, NONE) == pytest.approx(penalty.value(target, NONE), rel=1e-12)


def test_block_sparsity_couples_rows_by_one_column_for_each_group():
    curvature = BlockSparsityPenalty(groups=[[0, 2], [1]]).curvature(np.ones((6, 3)), ONE, "exact")
    assert curvature.columns.shape == (2, 6, 3)


def test_mechanism_products_need_no_feature_by_feature_blocks():
    p = 4096
    penalty = MechanismSparsityPenalty(feature_groups=np.arange(p).reshape(-1, 64).tolist())
    target = np.random.default_rng(8).normal(size=(4, p))
    tracemalloc.start()
    penalty.hvp(target, ONE, target)
    penalty.psd_majorizer_diag(target, ONE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000 < p * p * 8


def test_many_atoms_cost_what_their_pairs_cost():
    k, p = 4000, 6
    rng = np.random.default_rng(9)
    pairs = np.stack([np.arange(k - 1), np.arange(1, k)], axis=1)
    penalty = DecoderIncoherencePenalty(block_sizes=[3] * k, pairs=pairs,
                                        coactivation=rng.random(k - 1))
    target = rng.normal(size=(3 * k, p))
    tracemalloc.start()
    value = penalty.value(target, NONE)
    gradient = penalty.grad_target(target, NONE)
    products = penalty.hvp(target, NONE, target), penalty.psd_majorizer_hvp(target, NONE, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000 < k * k * 8
    # P does not change with the length of the target
    assert abs(gradient @ target.ravel()) < 1e-10 * value
    np.testing.assert_allclose(products[0], -gradient, atol=1e-12)


def test_zero_decoders_count_as_incoherent():
    penalty = DecoderIncoherencePenalty(block_sizes=[2, 1])
    assert penalty.value(np.zeros((3, 2)), NONE) == 0.0
    half = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    assert penalty.value(half, NONE) == 0.0
    assert not penalty.grad_target(half, NONE).any()


# --- wrong parameters -------------------------------------------------------------------------


@pytest.mark.parametrize("cls, fields, message", [
    (NuclearNormPenalty, {"latent_dim": 0}, "latent_dim"),
    (NuclearNormPenalty, {"latent_dim": 2, "eps": 0.0}, "eps"),
    (NuclearNormPenalty, {"latent_dim": 2, "max_rank": 0}, "max_rank"),
    (NuclearNormPenalty, {"latent_dim": 2, "max_rank": 3}, "max_rank must be at most"),
    (NuclearNormPenalty, {"latent_dim": 2, "target": "logits"}, "target"),
    (BlockSparsityPenalty, {"groups": [[0, 1], [1]]}, r"groups\[1\] repeats index 1"),
    (BlockSparsityPenalty, {"groups": [[0], [2]]}, "groups must cover"),
    (BlockSparsityPenalty, {"groups": [[0]], "eps": -1.0}, "eps"),
    (MechanismSparsityPenalty, {"feature_groups": [[0, 0]]}, r"feature_groups\[0\] repeats"),
    (MechanismSparsityPenalty, {"feature_groups": [[0]], "eps": np.nan}, "eps"),
    (OrthogonalityPenalty, {"latent_dim": 1.5}, "latent_dim"),
    (BlockOrthogonalityPenalty, {"groups": [[0, 1]]}, "groups must hold at least two"),
    (BlockOrthogonalityPenalty, {"groups": [[0, 1], [1, 2]]}, "groups.*overlap"),
    (DecoderIncoherencePenalty, {"block_sizes": [2]}, "block_sizes"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 0]}, r"block_sizes\[1\]"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 1], "pairs": [[0, 2]]},
     r"pairs\[0\] = \[0, 2\] names an atom outside 0 .. 1"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 1], "pairs": [[1, 1]]}, r"pairs\[0\]"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 1], "pairs": [[0, 1], [1, 0]]},
     r"pairs\[1\].*repeats"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 1], "coactivation": [1.0, 2.0]},
     "coactivation must hold one number for each of the 1 pairs"),
    (DecoderIncoherencePenalty, {"block_sizes": [2, 1], "coactivation": [-1.0]},
     r"coactivation\[0\]"),
    (OrthogonalityPenalty, {"latent_dim": 2, "weight": -1.0}, "weight"),
])
def test_wrong_parameters(cls, fields, message):
    with pytest.raises(InputError, match=f"^{message}"):
        cls(**fields)
    config = {key: value.tolist() if isinstance(value, np.ndarray) else value
              for key, value in fields.items()}
    with pytest.raises(RegistryError, match=message):
        from_config({"kind": cls.KIND_TAG, **config})


def test_wrong_shape_of_a_target():
    with pytest.raises(InputError, match=r"nuclear_norm.*\(n, 3\)"):
        NuclearNormPenalty(latent_dim=3).value(np.zeros((3, 4)), ONE)
    with pytest.raises(InputError, match=r"decoder_incoherence.*\(3, p\)"):
        DecoderIncoherencePenalty(block_sizes=[2, 1]).value(np.zeros((4, 3)), NONE)
