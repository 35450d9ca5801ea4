"""The page of `SoftmaxAssignmentSparsityPenalty`, method by method (DESIGN A6).

Every formula is held against plain loops and against finite differences of the value. A target is
flat and row-major, (N, K); ``scale`` is lambda / tau^2; ``w`` is the index of a logit.
"""

from math import exp, factorial, log

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.errors import InputError
from reml_sae.penalties import ScalarWeightSchedule, SoftmaxAssignmentSparsityPenalty

SIZES = [(1, 1.0), (2, 1.0), (3, 0.7), (5, 2.0), (8, 0.4)]
each_size = pytest.mark.parametrize(("k", "tau"), SIZES)
RHO = np.array([0.3])
STEP = 1e-4
MATRICES = ("row_dense_hessian", "row_psd_majorizer", "row_fisher_metric")


def logits(k, n=6, seed=0, spread=1.0):
    return spread * np.random.default_rng(seed).normal(size=(n, k))


def shares(row, tau):
    weights = [exp((z - max(row)) / tau) for z in row]
    return [weight / sum(weights) for weight in weights]


def entropy(row, tau):
    return -sum(a * log(a) for a in shares(row, tau) if a > 0.0)


def dense_hessian(row, tau, scale):
    """The formula of the page, entry by entry."""
    a = shares(row, tau)
    L = [log(share) + 1.0 for share in a]
    m = sum(share * level for share, level in zip(a, L, strict=True))
    return np.array([[scale * a[k] * ((m - L[k] - 1.0 if k == j else 0.0)
                                      + a[j] * (L[k] + L[j] + 1.0 - 2.0 * m))
                      for j in range(len(a))] for k in range(len(a))])


def row_sums(row, tau, scale):
    return np.array([sum(abs(entry) for entry in line) for line in dense_hessian(row, tau, scale)])


def fisher(row, tau, scale):
    a = shares(row, tau)
    return np.array([[scale * ((a[k] if k == j else 0.0) - a[k] * a[j]) for j in range(len(a))]
                     for k in range(len(a))])


def majorizer(row, tau, scale):
    return np.diag(row_sums(row, tau, scale))


REFERENCES = dict(zip(MATRICES, (dense_hessian, majorizer, fisher), strict=True))


def difference(function, x, direction):
    """Derivative along a direction, of fourth order in the step."""
    def at(k):
        return np.asarray(function(x + k * STEP * direction))

    return (8.0 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12.0 * STEP)


def assert_near(found, expected, tolerance=1e-8):
    scale = max(float(np.abs(expected).max()), 1e-3)
    assert np.shape(found) == np.shape(expected)
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * scale


# --- construction ------------------------------------------------------------------------------


def test_construction_by_position_by_name_and_by_new():
    penalty = SoftmaxAssignmentSparsityPenalty(4, 0.5)
    assert penalty == SoftmaxAssignmentSparsityPenalty.new(4, 0.5)
    assert penalty == SoftmaxAssignmentSparsityPenalty(k_atoms=4, temperature=0.5)
    assert (penalty.k_atoms, penalty.temperature) == (4, 0.5)
    assert penalty.weight == 1.0 and penalty.weight_schedule is None
    assert penalty.rho_count() == 1 and penalty.ROW_BLOCK_DIAGONAL
    assert pen.get("softmax_assignment_sparsity") is SoftmaxAssignmentSparsityPenalty


@pytest.mark.parametrize(("arguments", "name"), [
    ((0, 1.0), "k_atoms"), ((2.5, 1.0), "k_atoms"), ((True, 1.0), "k_atoms"),
    ((2, 0.0), "temperature"), ((2, -1.0), "temperature"), ((2, np.nan), "temperature"),
])
def test_wrong_arguments_are_named(arguments, name):
    for make in (SoftmaxAssignmentSparsityPenalty, SoftmaxAssignmentSparsityPenalty.new):
        with pytest.raises(InputError, match=f"^{name}"):
            make(*arguments)


def test_a_schedule_seeds_the_weight_from_its_place():
    schedule = ScalarWeightSchedule(w_start=4.0, w_end=1.0, kind="linear", steps=3, iter_count=2)
    penalty = SoftmaxAssignmentSparsityPenalty(3, 1.0).with_weight_schedule(schedule)
    assert penalty.weight == 2.0
    z = logits(3)
    plain = SoftmaxAssignmentSparsityPenalty(3, 1.0).value(z, RHO)
    assert penalty.value(z, RHO) == pytest.approx(2.0 * plain)
    assert penalty.apply_schedule(3).value(z, RHO) == pytest.approx(plain)


# --- value, gradient, Hessian --------------------------------------------------------------------


@each_size
def test_value_and_its_derivative_in_rho(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau, weight=1.7), logits(k)
    expected = 1.7 * exp(0.3) * sum(entropy(row, tau) for row in z)
    assert penalty.value(z.ravel(), RHO) == pytest.approx(expected, rel=1e-13, abs=1e-15)
    assert penalty.value(z, RHO) == penalty.value(z.ravel(), RHO)
    np.testing.assert_allclose(penalty.grad_rho(z, RHO), [expected], rtol=1e-13, atol=1e-15)


@each_size
def test_gradient_against_the_value(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau), logits(k).ravel()
    expected = np.array([difference(lambda x: penalty.value(x, RHO), z, e)
                         for e in np.eye(z.size)])
    assert_near(penalty.grad_target(z, RHO), expected)


@each_size
def test_hessian_product_and_diagonal_against_the_gradient(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau), logits(k).ravel()
    dense = np.array([difference(lambda x: penalty.grad_target(x, RHO), z, e)
                      for e in np.eye(z.size)])
    v = np.random.default_rng(1).normal(size=z.size)
    assert_near(penalty.hvp(z, RHO, v), dense @ v)
    assert_near(penalty.hessian_diag(z, RHO), np.diagonal(dense))
    assert_near(penalty.hessian_diag(z.reshape(-1, k), RHO), np.diagonal(dense))


@each_size
def test_hessian_diagonal_is_that_of_the_dense_rows(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau, weight=0.4), logits(k, spread=3.0)
    scale = 0.4 * exp(0.3) / tau**2
    dense = penalty.row_dense_hessian(z, scale)
    assert_near(penalty.hessian_diag(z, RHO), np.einsum("nkk->nk", dense).ravel(), 1e-13)


# --- one row, and rows ---------------------------------------------------------------------------


@each_size
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_against_plain_loops(name, k, tau):
    penalty, z, scale = SoftmaxAssignmentSparsityPenalty(k, tau), logits(k, spread=2.0), 0.6
    method = getattr(penalty, name)
    expected = np.array([REFERENCES[name](row, tau, scale) for row in z])
    assert_near(method(z, scale), expected, 1e-13)
    for row, matrix in zip(z, expected, strict=True):
        assert_near(method(row, scale), matrix, 1e-13)
        assert_near(method(list(row), scale), matrix, 1e-13)
    assert method(z[:1], scale).shape == (1, k, k)
    assert method(z[:0], scale).shape == (0, k, k)


@each_size
def test_absolute_row_sums_against_plain_loops(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau), logits(k, spread=2.0)
    expected = np.array([row_sums(row, tau, 0.6) for row in z])
    assert_near(penalty.psd_majorizer_abs_row_sums(z, 0.6), expected, 1e-13)
    assert_near(penalty.psd_majorizer_abs_row_sums(z[0], 0.6), expected[0], 1e-13)
    assert_near(penalty.row_psd_majorizer(z[0], 0.6), np.diag(expected[0]), 1e-13)


@each_size
@pytest.mark.parametrize("name", MATRICES)
def test_logit_derivatives_against_differences(name, k, tau):
    penalty, z, scale = SoftmaxAssignmentSparsityPenalty(k, tau), logits(k, spread=2.0), 0.6
    method, slope = (getattr(penalty, f"{name}{suffix}") for suffix in ("", "_logit_derivative"))
    for w in range(k):
        e_w = np.eye(k)[w]
        expected = difference(lambda x: method(x, scale), z, e_w)
        found = slope(z, scale, w)
        assert_near(found, expected, 1e-7)
        for row, matrix in zip(z, found, strict=True):
            assert_near(slope(row, scale, w), matrix, 1e-14)


def test_the_hessian_is_symmetric_with_zero_row_sums_and_indefinite():
    penalty, z = SoftmaxAssignmentSparsityPenalty(4, 0.8), logits(4, n=50, spread=2.0)
    H = penalty.row_dense_hessian(z, 1.0)
    np.testing.assert_array_equal(H, H.transpose(0, 2, 1))
    assert np.abs(H.sum(axis=2)).max() < 1e-14
    values = np.linalg.eigvalsh(H)
    assert values.min() < -0.1 and values.max() > 0.1


@pytest.mark.parametrize("call", [
    lambda p: p.row_dense_hessian(np.zeros(4), 1.0),
    lambda p: p.row_psd_majorizer(np.zeros((2, 2, 3)), 1.0),
    lambda p: p.row_fisher_metric(0.0, 1.0),
    lambda p: p.row_dense_hessian([0.0, np.nan, 0.0], 1.0),
    lambda p: p.row_dense_hessian([0.0, np.inf, 0.0], 1.0),
], ids=["width", "axes", "scalar", "nan", "inf"])
def test_wrong_rows_are_refused(call):
    with pytest.raises(InputError, match="row_logits"):
        call(SoftmaxAssignmentSparsityPenalty(3, 1.0))


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf, "1", None])
def test_a_wrong_scale_is_refused(scale):
    with pytest.raises(InputError, match="scale"):
        SoftmaxAssignmentSparsityPenalty(3, 1.0).psd_majorizer_abs_row_sums(np.zeros(3), scale)


@pytest.mark.parametrize("w", [-1, 3, 0.5, True])
@pytest.mark.parametrize("name", MATRICES)
def test_a_wrong_logit_is_refused(name, w):
    slope = getattr(SoftmaxAssignmentSparsityPenalty(3, 1.0), f"{name}_logit_derivative")
    with pytest.raises(InputError, match=r"^w "):
        slope(np.zeros(3), 1.0, w)


# --- the majorizer, hard and smooth --------------------------------------------------------------


def hostile_rows(k, n, seed=0):
    """Rows from uniform to vertices, with ties and with shares that are zero."""
    rng = np.random.default_rng(seed)
    spreads = (0.0, 0.1, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 30.0, 300.0, 3000.0)
    rows = [spread * rng.normal(size=(n, k)) for spread in spreads]
    pair = np.full((1, k), -5.0)
    pair[0, :2] = 5.0
    return np.concatenate([*rows, pair, 40.0 * np.eye(k)[:1], 0.5 * np.eye(k)[:1]])


@pytest.mark.parametrize("k", [2, 3, 5, 10, 16, 64])
def test_both_majorizers_majorize_by_eigenvalues(k):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, 0.9), hostile_rows(k, 4 + 400 // k)
    H = penalty.row_dense_hessian(z, 1.3)
    for name in ("row_psd_majorizer", "row_smooth_majorizer"):
        D = getattr(penalty, name)(z, 1.3)
        size = np.maximum(np.abs(D).max(axis=(1, 2)), 1e-300)
        assert (np.einsum("nkk->nk", D) >= 0.0).all()
        assert not (D - np.eye(k) * D).any()
        assert (np.linalg.eigvalsh(D - H)[:, 0] / size).min() >= -1e-13


@pytest.mark.parametrize("k", [2, 3, 5, 8, 10, 11, 20, 50, 100, 300, 1000])
def test_the_smooth_majorizer_exceeds_the_hard_one_by_a_share_of_the_metric(k):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, 1.0), hostile_rows(k, max(1, 200 // k))
    hard = penalty.psd_majorizer_abs_row_sums(z, 0.7)
    smooth = np.einsum("nkk->nk", penalty.row_smooth_majorizer(z, 0.7))
    assert (smooth >= hard * (1.0 - 1e-14)).all()
    metric = np.abs(penalty.row_fisher_metric(z, 0.7)).sum(-1)
    assert (smooth <= (hard + 0.1 * metric) * (1.0 + 1e-12)).all()
    sure = 8.0 * np.eye(k)[:1]  # a row that is nearly hard
    ratio = (np.einsum("nkk->nk", penalty.row_smooth_majorizer(sure, 0.7))
             / penalty.psd_majorizer_abs_row_sums(sure, 0.7))
    assert (ratio < 1.005).all()


def test_the_contract_is_hard_and_the_engine_is_smooth():
    penalty, z = SoftmaxAssignmentSparsityPenalty(5, 0.7, weight=0.8), logits(5, spread=2.0)
    scale = 0.8 * exp(0.3) / 0.7**2
    hard = penalty.psd_majorizer_abs_row_sums(z, scale)
    np.testing.assert_allclose(penalty.psd_majorizer_diag(z.ravel(), RHO), hard.ravel(), rtol=1e-14)
    v = np.random.default_rng(2).normal(size=z.size)
    np.testing.assert_allclose(penalty.psd_majorizer_hvp(z, RHO, v), hard.ravel() * v, rtol=1e-14)
    engine = penalty.curvature(z, RHO, "majorizer").blocks
    np.testing.assert_array_equal(engine, penalty.row_tight_majorizer(z, scale))
    assert (np.einsum("nkk->nk", engine) < hard).all()


@pytest.mark.parametrize("k", [2, 3, 5, 10, 64])
def test_the_tight_majorizer_is_the_positive_part_but_for_its_rounding(k):
    """H <= T and 0 <= T by eigenvalues, and T <= H_+ + (epsilon / 2) S in the scale of S."""
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, 0.9), hostile_rows(k, 4 + 400 // k)
    H, T = penalty.row_dense_hessian(z, 1.3), penalty.row_tight_majorizer(z, 1.3)
    S = np.einsum("nkk->nk", penalty.row_smooth_majorizer(z, 1.3))
    kept = (S > 1e-150).all(axis=1)
    assert kept.sum() > len(z) // 2
    H, T, S = H[kept], T[kept], S[kept]
    scaled = 1.0 / np.sqrt(S[:, :, None] * S[:, None, :])
    values, vectors = np.linalg.eigh(H * scaled)
    positive = (vectors * np.maximum(values, 0.0)[:, None]) @ vectors.transpose(0, 2, 1)
    for gap in (T * scaled - H * scaled, T * scaled, positive + 0.025 * np.eye(k) - T * scaled):
        assert np.linalg.eigvalsh(gap)[:, 0].min() >= -1e-12


def test_the_tight_majorizer_is_the_hessian_of_a_hard_row():
    """Where H is positive on all that is not its null space, ones; the diagonal is far above it."""
    penalty, z = SoftmaxAssignmentSparsityPenalty(4, 1.0), 5.0 * np.eye(4)
    chart = np.linalg.svd(np.ones((1, 4)))[2][1:]
    exact, tight, hard = (np.linalg.slogdet(chart @ matrix(z, 1.0) @ chart.T)[1] for matrix in (
        penalty.row_dense_hessian, penalty.row_tight_majorizer, penalty.row_psd_majorizer))
    assert (tight > exact).all() and (tight < exact + 0.1).all() and (hard > exact + 1.0).all()


def crossing():
    """A row of logits at which H_01 changes sign along z_0."""
    penalty = SoftmaxAssignmentSparsityPenalty(3, 1.0)

    def entry(t):
        return penalty.row_dense_hessian([t, 0.0, 1.0], 1.0)[0, 1]

    low, high = 0.0, 0.5
    assert entry(low) < 0.0 < entry(high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if entry(middle) < 0.0 else (low, middle)
    return penalty, np.array([low, 0.0, 1.0])


def test_the_slope_of_the_hard_majorizer_jumps_where_that_of_the_smooth_one_does_not():
    penalty, z = crossing()
    e = np.array([1e-7, 0.0, 0.0])
    hard = [penalty.row_psd_majorizer_logit_derivative(z + s * e, 1.0, 0)[0, 0] for s in (-1, 1)]
    weights = np.zeros((1, 3, 3))
    weights[0, 0, 0] = 1.0
    smooth = [penalty.row_majorizer_vjp(z + s * e, np.zeros(1), weights)[0, 0] for s in (-1, 1)]
    jump = 2.0 * abs(penalty.row_dense_hessian_logit_derivative(z, 1.0, 0)[0, 1])
    assert abs(hard[1] - hard[0]) == pytest.approx(jump, rel=1e-3)
    assert abs(smooth[1] - smooth[0]) < 0.1 * jump


def test_the_sign_of_zero_is_zero():
    """Where a whole row of H is zero, D does not move."""
    penalty = SoftmaxAssignmentSparsityPenalty(3, 1.0)
    for row, scale in ((np.array([0.0, 1.0, 2.0]), 0.0), (np.array([0.0, 4e3, 0.0]), 1.0)):
        for w in range(3):
            assert not penalty.row_psd_majorizer_logit_derivative(row, scale, w).any()


def test_the_fisher_metric_is_positive_but_not_a_majorizer():
    penalty, z = SoftmaxAssignmentSparsityPenalty(2, 1.0), np.log([0.95, 0.05])
    assert penalty.row_fisher_metric(z, 1.0)[0, 0] == pytest.approx(0.0475, abs=1e-12)
    assert penalty.row_dense_hessian(z, 1.0)[0, 0] == pytest.approx(0.0784, abs=5e-5)
    assert penalty.psd_majorizer_abs_row_sums(z, 1.0)[0] >= 0.0784
    metric = penalty.row_fisher_metric(z, 1.0)
    assert np.linalg.eigvalsh(metric).min() > -1e-16
    assert np.linalg.eigvalsh(metric - penalty.row_dense_hessian(z, 1.0)).min() < -0.05


# --- extreme logits ------------------------------------------------------------------------------

EXTREME = np.array([
    [0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [0.0, 1e4, 1e4], [746.0, 0.0, -746.0],
    [1e308, -1e308, 0.0], [1e308, 1e308, -1e308], [-1.7e308, 1.7e308, 1e-320], [5e-324, 0.0, 0.0],
])


@pytest.mark.parametrize("tau", [1e-3, 1.0, 1e3])
def test_no_nan_at_any_finite_logits(tau):
    penalty = SoftmaxAssignmentSparsityPenalty(3, tau)
    results = [penalty.row_values(EXTREME, RHO), penalty.grad_target(EXTREME, RHO),
               penalty.hessian_diag(EXTREME, RHO), penalty.hvp(EXTREME, RHO, np.ones(27)),
               penalty.psd_majorizer_diag(EXTREME, RHO),
               penalty.psd_majorizer_hvp(EXTREME, RHO, np.ones(27)),
               penalty.row_smooth_majorizer(EXTREME, 1.0),
               penalty.row_tight_majorizer(EXTREME, 1.0), penalty.grad_rho(EXTREME, RHO),
               penalty.row_majorizer_vjp(EXTREME, RHO, np.ones((9, 3, 3)))]
    for name in MATRICES:
        results.append(getattr(penalty, name)(EXTREME, 1.0))
        results += [getattr(penalty, f"{name}_logit_derivative")(EXTREME, 1.0, w)
                    for w in range(3)]
    for result in results:
        assert np.isfinite(result).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_no_square_of_an_entry_leaves_the_range_of_a_float(scale):
    penalty, z = SoftmaxAssignmentSparsityPenalty(3, 1.0), logits(3)
    for method in (penalty.row_smooth_majorizer, penalty.row_psd_majorizer,
                   penalty.row_tight_majorizer):
        np.testing.assert_allclose(method(z, scale) / scale, method(z, 1.0), rtol=1e-12)


def test_entropy_at_the_middle_and_at_the_vertices():
    penalty = SoftmaxAssignmentSparsityPenalty(4, 1.0)
    zero = np.zeros(1)
    assert penalty.value(np.zeros((5, 4)), zero) == pytest.approx(5.0 * log(4.0))
    assert penalty.value(1e4 * np.eye(4), zero) == 0.0


# --- weight zero and the normaliser --------------------------------------------------------------


@each_size
def test_weight_zero_switches_the_penalty_off(k, tau):
    penalty, z = SoftmaxAssignmentSparsityPenalty(k, tau, weight=0.0), logits(k)
    assert penalty.value(z, RHO) == 0.0
    for name in ("grad_target", "hessian_diag", "psd_majorizer_diag", "grad_rho"):
        assert not getattr(penalty, name)(z, RHO).any(), name
    for name in ("hvp", "psd_majorizer_hvp"):
        assert not getattr(penalty, name)(z, RHO, np.ones(z.size)).any(), name
    for which in ("majorizer", "exact"):
        assert not penalty.curvature(z, RHO, which).blocks.any()
    value, slope = penalty.log_partition(RHO, 7)
    assert value == pytest.approx(-7.0 * log(factorial(k - 1)), abs=1e-14)
    assert slope.tolist() == [0.0]
    assert pen.from_config(penalty.to_config()) == penalty


def test_a_small_weight_tends_to_weight_zero():
    value = [SoftmaxAssignmentSparsityPenalty(4, 1.0, weight=w).log_partition(np.zeros(1), 3)[0]
             for w in (0.0, 1e-9)]
    assert value[1] == pytest.approx(value[0], abs=1e-8)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, None])
def test_another_weight_is_refused(weight):
    with pytest.raises(InputError, match="weight must be a number >= 0"):
        SoftmaxAssignmentSparsityPenalty(3, 1.0, weight=weight)


def test_the_normaliser_of_two_atoms_by_quadrature():
    penalty = SoftmaxAssignmentSparsityPenalty(2, 1.0, weight=3.0)
    x, weights = np.polynomial.legendre.leggauss(200)
    a = 0.5 * (x + 1.0)
    density = np.exp(-3.0 * exp(0.3) * np.array([entropy([log(t), log(1 - t)], 1.0) for t in a]))
    value, slope = penalty.log_partition(RHO, 2)
    assert value == pytest.approx(2.0 * log(0.5 * weights @ density), abs=1e-6)
    assert slope == pytest.approx(difference(
        lambda rho: penalty.log_partition(rho, 2)[0], RHO, np.ones(1)), rel=1e-7)


@each_size
def test_the_whole_contract_by_its_own_check(k, tau):
    report = pen.check_penalty(SoftmaxAssignmentSparsityPenalty(k, tau), logits(k), RHO)
    assert report.passed, str(report)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spread", [300.0, 700.0, 745.0])
def test_shares_near_the_least_number_have_a_finite_pull_back(spread):
    """Products of two shares underflow to a number by which no weight can be divided."""
    rng = np.random.default_rng(0)
    penalty = SoftmaxAssignmentSparsityPenalty(k_atoms=3)
    z, weights = rng.uniform(-spread, spread, (200, 3)), rng.normal(size=(200, 3, 3))
    pulled = penalty.row_majorizer_vjp(z.ravel(), np.zeros(1), weights)
    assert np.abs(pulled).max() < 100.0
