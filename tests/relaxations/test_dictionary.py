"""Block dictionaries on planted rings and flats: frames, supports, degenerate data, determinism."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from reml_sae.errors import InputError
from reml_sae.relaxations.block_ksvd import BlockFit, BlockProblem, code_rows
from reml_sae.relaxations.block_start import ring_amplitudes
from reml_sae.relaxations.dictionary import _leaves_noise, block_dictionary
from reml_sae.relaxations.policy import BlockPolicy


def planted(seed, K, p, n_active, *, exact=True, sd=0.1, per_atom=100, dims=None, axes=(1.0, 1.0)):
    """Rows that sum rings (q = 2) or Gaussian flats: data, frames, support and angles."""
    rng = np.random.default_rng(1000 + seed)
    N, dims = per_atom * K, [2] * K if dims is None else dims
    frames = [np.linalg.qr(rng.standard_normal((p, q)))[0].T for q in dims]
    sizes = np.full(N, n_active) if exact else rng.integers(1, n_active + 1, N)
    order = rng.random((N, K)).argsort(1)
    support = np.zeros((N, K), bool)
    np.put_along_axis(support, order, np.arange(K) < sizes[:, None], 1)
    t = rng.uniform(-np.pi, np.pi, (N, K))
    Z = sd * rng.standard_normal((N, p))
    for k, frame in enumerate(frames):
        ring = np.column_stack([np.cos(t[:, k]), np.sin(t[:, k])]) * axes
        y = ring if dims[k] == 2 else rng.standard_normal((N, dims[k]))
        Z += (support[:, [k]] * y) @ frame
    Z -= Z.mean(0)
    return Z / np.sqrt((Z**2).mean()), frames, support, t


def solve(Z, dims, n_active, *, seed=0, exact=True, n_init=1, shell=None):
    return block_dictionary(Z, dims, n_active, n_init, np.random.default_rng(seed),
                            BlockPolicy(), exact=exact,
                            shell=shell)


def matched(frames, found):
    """Least cosine of each planted frame with its partner, and the partners."""
    least = np.array([[np.linalg.svd(f @ g.T, compute_uv=False).min() if f.shape == g.shape else 0.0
                       for g in found] for f in frames])
    rows, columns = linear_sum_assignment(-least)
    return least[rows, columns], columns


def check_contract(starts, Z, dims, n_active, exact):
    """What holds for every start, whatever the data."""
    assert len(starts) >= 1
    for start in starts:
        active = start.support.sum(1)
        assert start.support.shape == (len(Z), len(dims))
        assert active.min() >= (n_active if exact else 1)
        assert active.max() <= n_active
        fitted = np.zeros(Z.shape)
        for k, q in enumerate(dims):
            assert start.frames[k].shape == (q, Z.shape[1])
            np.testing.assert_allclose(start.frames[k] @ start.frames[k].T, np.eye(q), atol=1e-8)
            assert start.scores[k].shape == (len(Z), q)
            assert not start.scores[k][~start.support[:, k]].any()
            fitted += start.scores[k] @ start.frames[k]
        assert np.isfinite(fitted).all()
        residual = Z - fitted
        total = (Z**2).sum()
        for k in range(len(dims)):  # least squares: nothing is left along the frames in use
            mine = start.support[:, k]
            left = residual[mine] @ start.frames[k].T
            np.testing.assert_allclose(left, 0.0, atol=1e-5 * (1.0 + np.sqrt(total)))
        if total > 0:
            assert start.explained == pytest.approx(1.0 - (residual**2).sum() / total, abs=1e-6)
        amplitudes, angles = ring_amplitudes(start)
        assert np.isfinite(amplitudes).all()
        assert not amplitudes[~start.support].any()
        assert all(((-np.pi <= a) & (a < np.pi)).all() for a in angles)


@pytest.mark.parametrize(
    ("K", "p", "n_active", "exact"),
    [(12, 8, 1, True), (4, 8, 2, True), (8, 16, 3, False)],
)
def test_planted_planes_are_found(K, p, n_active, exact):
    Z, frames, support, _ = planted(0, K, p, n_active, exact=exact)
    starts = solve(Z, [2] * K, n_active, exact=exact, shell=[True] * K)
    check_contract(starts, Z, [2] * K, n_active, exact)
    cosines, partner = matched(frames, starts[0].frames)
    assert cosines.min() > 0.97
    assert (starts[0].support[:, partner] == support).all(1).mean() > 0.8


def test_blocks_of_several_sizes_are_found():
    dims = [2, 1, 3, 2]
    Z, frames, _, _ = planted(0, 4, 12, 2, dims=dims, sd=0.05)
    start = solve(Z, dims, 2)[0]
    assert [len(f) for f in start.frames] == dims
    assert matched(frames, start.frames)[0].min() > 0.97


def test_amplitudes_and_angles_of_ellipses():
    Z, frames, support, t = planted(0, 3, 8, 1, sd=0.01, axes=(1.0, 0.5))
    start = solve(Z, [2] * 3, 1)[0]
    cosines, partner = matched(frames, start.frames)
    assert cosines.min() > 0.99
    amplitudes, angles = ring_amplitudes(start)
    for k, j in enumerate(partner):
        both = support[:, k] & start.support[:, j]
        assert amplitudes[both, j] == pytest.approx(1.0, abs=0.15)
        turns = [np.exp(1j * (t[both, k] - sign * angles[j][both])) for sign in (1.0, -1.0)]
        assert max(np.abs(turn.mean()) for turn in turns) > 0.99


def test_same_seed_same_start():
    Z = planted(1, 4, 8, 2)[0]
    first, second = (solve(Z[:160], [2] * 4, 2, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(first.support, second.support)
    for a, b in zip(first.frames, second.frames, strict=True):
        np.testing.assert_array_equal(a, b)


def test_permuted_rows_give_the_same_planes():
    Z, _, _, _ = planted(0, 4, 8, 1)
    order = np.random.default_rng(0).permutation(len(Z))
    plain, permuted = solve(Z, [2] * 4, 1)[0], solve(Z[order], [2] * 4, 1)[0]
    cosines, partner = matched(plain.frames, permuted.frames)
    assert cosines.min() > 0.999
    assert (permuted.support[:, partner] == plain.support[order]).all(1).mean() > 0.99


def test_starts_are_distinct_and_ranked():
    Z = np.random.default_rng(0).standard_normal((150, 6))
    starts = solve(Z, [2] * 4, 1, n_init=3)
    check_contract(starts, Z, [2] * 4, 1, True)
    assert len(starts) == 3
    for i, a in enumerate(starts):
        assert all(matched(a.frames, b.frames)[0].min() < 0.99 for b in starts[:i])


def test_rows_of_few_directions_in_many_columns():
    Z, frames, _, _ = planted(0, 3, 6, 1, sd=0.02)
    lift = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 6)))[0]
    starts = solve(Z @ lift.T, [2] * 3, 1)
    check_contract(starts, Z @ lift.T, [2] * 3, 1, True)
    assert matched([f @ lift.T for f in frames], starts[0].frames)[0].min() > 0.99


@pytest.mark.parametrize("n_active", [1, 2])
@pytest.mark.parametrize("data", ["zero", "line", "repeated", "few rows"])
def test_degenerate_data(data, n_active):
    rng = np.random.default_rng(0)
    Z = {
        "zero": np.zeros((20, 5)),
        "line": np.outer(rng.standard_normal(30), rng.standard_normal(5)),
        "repeated": np.repeat(rng.standard_normal((1, 5)), 12, axis=0),
        "few rows": rng.standard_normal((4, 7)),
    }[data]
    starts = solve(Z, [2, 1, 2], n_active)
    check_contract(starts, Z, [2, 1, 2], n_active, True)
    if data in ("line", "repeated"):
        assert starts[0].explained > 0.999


def test_rows_that_are_all_alike_have_no_independent_directions():
    Z = np.zeros((50, 12))
    for tell in (False, True):
        starts = block_dictionary(Z, [1] * 6, 2, 1, np.random.default_rng(0), BlockPolicy(),
                                  exact=True, tell=tell)
        check_contract(starts, Z, [1] * 6, 2, True)


@pytest.mark.parametrize("N", [1, 2, 60])
def test_one_atom(N):
    Z, frames, _, _ = planted(0, 1, 5, 1, per_atom=60, sd=0.01)
    starts = solve(Z[:N], [2], 1)
    check_contract(starts, Z[:N], [2], 1, True)
    if N == 60:
        assert matched(frames, starts[0].frames)[0].min() > 0.99


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"dims": []}, "dims"),
        ({"dims": [2, 0]}, "dims"),
        ({"dims": [2, 7]}, "dims must be between 1 and the 6 columns"),
        ({"n_active": 0}, "n_active"),
        ({"n_active": 3}, "n_active must be between 1 and the 2 atoms, got 3"),
        ({"Z": np.zeros((1, 6))}, "1 rows, fewer than its 2 atoms"),
        ({"Z": np.full((9, 6), np.nan)}, "finite"),
        ({"shell": [True]}, "shell"),
    ],
)
def test_impossible_arguments(arguments, match):
    given = {"Z": np.ones((9, 6)), "dims": [2, 2], "n_active": 1, "shell": None} | arguments
    with pytest.raises(InputError, match=match):
        solve(given["Z"], given["dims"], given["n_active"], shell=given["shell"])


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_rows_that_have_noise_left_end_the_search(seed):
    """Of the true frames it is noise; of two that are mixed, or of none in one's place, it is not.
    """
    K, p, s = 6, 12, 2
    Z, frames, _, _ = planted(seed, K, p, s, sd=0.05)
    dims = np.full(K, 2)
    problem = BlockProblem(dims, s, True, np.random.default_rng(seed), BlockPolicy())

    def left(F):
        coding = code_rows(Z, F, s, True, 0.1, np.zeros(K), problem.policy.beam)
        return _leaves_noise(BlockFit(F, *coding[:3], coding[3], 0.1, dims))

    F = np.array(frames)
    mixed = F.copy()
    mixed[0, 1], mixed[1, 1] = F[1, 1], F[0, 1]
    missing = F.copy()
    missing[0] = 0.0
    assert left(F) and not left(mixed) and not left(missing)
    (start,) = solve(Z, dims, s, seed=seed, n_init=4)
    assert matched(frames, start.frames)[0].min() > 0.98


def test_what_may_be_more_than_noise_is_searched_on():
    """Wrong frames leave rows that look like noise where there is much of it."""
    Z, frames, _, _ = planted(2, 4, 16, 2, sd=0.15, per_atom=40)
    start = solve(Z, [2] * 4, 2, seed=2, n_init=4)[0]
    assert matched(frames, start.frames)[0].min() > 0.95
