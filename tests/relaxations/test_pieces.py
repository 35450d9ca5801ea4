"""Starts on planted rings and lines: labels, phases, degenerate inputs, determinism."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from reml_sae.errors import InputError
from reml_sae.relaxations.pieces import find_partitions
from reml_sae.relaxations.policy import PartitionPolicy


def planted(seed, N, p, K, sd, orthogonal=True, offset=0.0, sizes=None, lines=()):
    """Rows on K unit circles (or lines): data, labels and coordinates."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, N, p=sizes)
    axes = np.linalg.qr(rng.standard_normal((p, p)))[0].T
    Z, t = np.zeros((N, p)), rng.uniform(-np.pi, np.pi, N)
    for k in range(K):
        plane = axes[2 * k : 2 * k + 2] if orthogonal else np.linalg.qr(
            rng.standard_normal((p, 2)))[0].T
        mine = labels == k
        if k in lines:
            t[mine] = rng.standard_normal(mine.sum())
            curve = t[mine, None] * plane[:1]
        else:
            curve = np.column_stack([np.cos(t[mine]), np.sin(t[mine])]) @ plane
        Z[mine] = offset * rng.standard_normal(p) / np.sqrt(p) + curve
    Z += sd * rng.standard_normal(Z.shape)
    Z -= Z.mean(0)
    return Z / np.sqrt((Z**2).mean()), labels, t


def starts_of(Z, K, seed=0, n_init=4, lines=()):
    rings = [k not in lines for k in range(K)]
    q = [1 if k in lines else 2 for k in range(K)]
    return find_partitions(Z, [1] * K, q, rings, n_init, np.random.default_rng(seed),
                           PartitionPolicy())


def match(truth, labels, K):
    """Accuracy under the best permutation, and the found atom of each true one."""
    table = np.bincount(truth * K + labels, minlength=K * K).reshape(K, K)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(truth), columns


def phase_error(t, found):
    """Root mean squared error of angles, up to a rotation and a reflection."""
    errors = []
    for sign in (1.0, -1.0):
        turn = np.exp(1j * (t - sign * found))
        errors.append(np.sqrt(np.mean(np.angle(turn / np.mean(turn)) ** 2)))
    return min(errors)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("scenario", "least"),
    [
        (dict(N=400, p=16, K=2, sd=0.02), 0.99),
        (dict(N=400, p=16, K=2, sd=0.1), 0.99),
        (dict(N=400, p=16, K=2, sd=0.3), 0.93),
        (dict(N=400, p=16, K=3, sd=0.1), 0.99),
        (dict(N=1000, p=64, K=8, sd=0.05), 0.97),
        (dict(N=1000, p=16, K=8, sd=0.05, orthogonal=False), 0.97),
        (dict(N=1000, p=24, K=8, sd=0.05, orthogonal=False), 0.97),
        (dict(N=400, p=16, K=3, sd=0.05, orthogonal=False, offset=1.0), 0.97),
        (dict(N=400, p=16, K=4, sd=0.1, orthogonal=False, offset=3.0), 0.97),
        (dict(N=400, p=16, K=2, sd=0.05, lines=(1,)), 0.97),
        (dict(N=800, p=16, K=3, sd=0.05, sizes=(0.8, 0.15, 0.05)), 0.97),
    ],
    ids=str,
)
def test_labels_and_phases(scenario, least, seed):
    Z, truth, t = planted(seed, **scenario)
    K, lines = scenario["K"], scenario.get("lines", ())
    start = starts_of(Z, K, seed, lines=lines)[0]
    accuracy, atoms = match(truth, start.labels, K)
    assert accuracy >= least
    for k, atom in enumerate(atoms):
        mine = (truth == k) & (start.labels == atom)
        found = start.coordinates[atom][mine, 0]
        if k in lines:
            assert abs(np.corrcoef(t[mine], found)[0, 1]) > 0.99
            assert found.std() == pytest.approx(1.0, abs=0.1)
        else:
            assert phase_error(t[mine], found) < 1.3 * scenario["sd"] + 0.02


@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_one_circle(sd):
    Z, _, t = planted(3, 200, 12, 1, sd)
    starts = starts_of(Z, 1)
    assert len(starts) == 4
    assert [s.explained for s in starts] == sorted((s.explained for s in starts), reverse=True)
    assert phase_error(t, starts[0].coordinates[0][:, 0]) < 1.3 * sd + 0.02


def test_one_circle_in_its_plane_has_one_start():
    Z, _, t = planted(0, 200, 2, 1, 0.05)
    (start,) = starts_of(Z, 1)
    assert phase_error(t, start.coordinates[0][:, 0]) < 0.1
    assert start.explained > 0.98


def test_ring_beats_variance():
    """A plane with a ring is preferred to one of a little more variance."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, 500)
    Z = np.column_stack([np.cos(t), np.sin(t), 0.75 * rng.standard_normal((500, 2))])
    start = starts_of(Z - Z.mean(0), 1)[0]
    assert phase_error(t, start.coordinates[0][:, 0]) < 0.2


def test_starts_are_distinct_and_sorted():
    Z, _, _ = planted(0, 600, 16, 6, 0.3)
    starts = starts_of(Z, 6)
    assert 1 < len(starts) <= 4
    assert all(a.explained >= b.explained for a, b in pairwise(starts))
    for i, a in enumerate(starts):
        assert all(match(a.labels, b.labels, 6)[0] <= 0.98 for b in starts[:i])
        assert all(c.min() >= -np.pi and c.max() < np.pi for c in a.coordinates)


def test_deterministic():
    Z, _, _ = planted(0, 600, 16, 6, 0.3)
    for a, b in zip(starts_of(Z, 6, 5), starts_of(Z, 6, 5), strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert all(np.array_equal(x, y) for x, y in zip(a.coordinates, b.coordinates, strict=True))


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("lines", [(), (0,)])
@pytest.mark.parametrize(
    "Z",
    [
        np.zeros((10, 4)),
        np.repeat(np.eye(3), 5, axis=0),
        np.random.default_rng(0).standard_normal((4, 5)),
        np.random.default_rng(0).standard_normal((3, 2)),
        np.random.default_rng(0).standard_normal((50, 1)),
        np.eye(1, 6).repeat(20, axis=0) * np.arange(20)[:, None],
        np.full((12, 3), 7.0) * (np.arange(12) == 0)[:, None],
        1e-9 * np.random.default_rng(0).standard_normal((40, 3)),
    ],
    ids=["constant", "duplicates", "few", "fewer", "p1", "line", "outlier", "tiny"],
)
def test_degenerate(Z, K, lines):
    Z = Z - Z.mean(0)
    starts = starts_of(Z, K, lines=lines)
    assert starts
    for start in starts:
        assert set(start.labels) == set(range(K))
        assert np.isfinite(start.explained)
        assert start.explained <= 1.0 + 1e-9
        assert len(start.coordinates) == K
        for c in start.coordinates:
            assert c.shape == (len(Z), 1)
            assert np.isfinite(c).all()


def test_flats_of_more_dimensions_than_the_data():
    Z = np.random.default_rng(0).standard_normal((30, 2))
    for K in (1, 2):
        start = find_partitions(Z, [3] * K, [3] * K, [False] * K, 2, np.random.default_rng(0),
                                PartitionPolicy())[0]
        assert [c.shape for c in start.coordinates] == [(30, 3)] * K
        sd = start.coordinates[0][start.labels == 0].std(0)
        assert np.allclose(sd, [1.0, 1.0, 0.0])


def test_too_few_rows():
    with pytest.raises(InputError, match="2 rows"):
        starts_of(np.zeros((2, 3)), 3)
