"""Posterior bands of a planted circle: their coverage over many seeds."""

import numpy as np

import reml_sae as rs
from reml_sae.manifolds import Circle

SEEDS, N, P, SD, GRID = 24, 100, 4, 0.05, 64
NEAR = 0.1


def planted(seed):
    """Rows about a unit circle in the first two of P columns."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-np.pi, np.pi, N)
    return np.stack([np.cos(t), np.sin(t)], axis=1) @ np.eye(P)[:2] + SD * rng.normal(size=(N, P))


def covered(seed):
    """Shares of points at which the band covers the plant: radially, out of its plane, and in it.

    The fit knows the circle up to its phase and direction, so the plant is turned to it.
    """
    model = rs.SAEManifold(n_atoms=1, topology=Circle(2), n_init=1).fit(planted(seed))
    assert model.converged_, model.message_
    atom, s = model.atoms_[0], np.linspace(-np.pi, np.pi, GRID, endpoint=False)
    x, y = (np.exp(-1j * s) @ atom.curve(s)[:, :2]) / GRID
    turned = {sign: x + sign * 1j * y for sign in (1.0, -1.0)}
    sign = max(turned, key=lambda key: abs(turned[key]))
    angle = sign * (s + np.angle(turned[sign]))
    true = np.zeros((GRID, P))
    true[:, 0], true[:, 1] = np.cos(angle), np.sin(angle)
    low, high = atom.band(s, 0.95)
    inside = (low <= true) & (true <= high)
    radial = [inside[np.abs(true[:, 1 - j]) < NEAR, j] for j in (0, 1)]
    return np.concatenate(radial).mean(), inside[:, 2:].mean(), inside[:, :2].mean()


def test_bands_cover_as_often_as_they_say():
    shares = np.array([covered(seed) for seed in range(SEEDS)])
    mean, error = shares.mean(axis=0), shares.std(axis=0, ddof=1) / np.sqrt(SEEDS)
    for share, standard_error in zip(mean, error, strict=True):
        assert abs(share - 0.95) < 2.0 * standard_error, (mean, error)
        assert standard_error < 0.04
