"""Retraction, volume of steps, distance, grid."""

import numpy as np
import pytest

from tests.manifolds.cases import BALLS, MANIFOLDS, axes, draws, every, lattice, tangents


def on_manifold(manifold, t):
    if manifold.name in BALLS:
        return np.allclose(np.linalg.norm(t, axis=1), 1.0, atol=1e-14)
    angles = t[:, [axis == "a" for axis in axes(manifold)]]
    return bool(((angles >= -np.pi) & (angles < np.pi)).all())


@every
def test_retract_stays_on_the_manifold(manifold):
    rng = np.random.default_rng(1)
    t = draws(manifold, 200)
    for size in (0.0, 1e-9, 1.0, 30.0):
        step = size * rng.normal(size=t.shape)
        moved = manifold.retract(t, step)
        assert moved.shape == t.shape
        assert on_manifold(manifold, moved)
    np.testing.assert_allclose(manifold.retract(t, np.zeros_like(t)), t, atol=1e-15)


@every
def test_retract_follows_the_step(manifold):
    t, eps = 0.9 * draws(manifold, 40), 1e-5
    if manifold.name in BALLS:
        t /= 0.9
    v = tangents(manifold, t)
    ahead, behind = manifold.retract(t, eps * v), manifold.retract(t, -eps * v)
    np.testing.assert_allclose((ahead - behind) / (2 * eps), v, atol=1e-9)
    speed = manifold.distance(ahead, behind) / (2 * eps)
    density = np.exp(-t[:, 0] ** 2 / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(
        speed, density * np.abs(v[:, 0]) if manifold.name == "interval" else 1.0, atol=1e-8)


@every
def test_step_volume_is_the_determinant_of_the_retraction(manifold):
    rng = np.random.default_rng(3)
    t = draws(manifold, 30)
    length = rng.uniform(0.05, 0.95, size=(30, 1)) * BALLS.get(manifold.name, 3.0)
    step = length * tangents(manifold, t)
    eps = 1e-5
    frames = [np.eye(manifold.latent_dim)] * len(t)
    if manifold.name in BALLS:
        frames = [np.linalg.svd(row[None])[2][1:] for row in t]
    expected = []
    for row, s, frame in zip(t, step, frames, strict=True):
        turned = manifold.retract(row[None], s[None])
        columns = []
        for direction in frame:
            ends = [manifold.retract(row[None], (s + sign * eps * direction)[None])
                    for sign in (1, -1)]
            # around the moved point, so that no turn lies between the ends
            near = [end if manifold.distance(end, turned) < 1e-3 else turned for end in ends]
            columns.append((near[0] - near[1])[0] / (2 * eps))
        jacobian = np.array(columns)
        expected.append(0.5 * np.linalg.slogdet(jacobian @ jacobian.T)[1])
    np.testing.assert_allclose(manifold.log_step_volume(t, step), expected, atol=1e-6)


@every
def test_steps_cover_the_prior_once(manifold):
    t = draws(manifold, 1, seed=4)
    if manifold.name in BALLS:
        # polar in the tangent plane, beyond the reach too; then the radial part
        edge = BALLS[manifold.name]
        r, w = np.polynomial.legendre.leggauss(40)
        length = np.concatenate([0.5 * edge * (r + 1), edge * (1.001 + 0.5 * (r + 1))])
        w = 0.5 * edge * np.tile(w, 2) * length
        angle, height = 2 * np.pi * np.arange(24) / 24, np.arange(-8, 8, 0.2)
        frame = np.linalg.svd(t)[2]
        unit = np.column_stack([np.cos(angle), np.sin(angle)]) @ frame[1:]
        flat = (length[:, None, None] * unit).reshape(-1, 3)
        steps = (flat[:, None] + height[:, None] * t).reshape(-1, 3)
        weights = np.repeat(np.repeat(w, 24), len(height)) * 2 * np.pi / 24 * 0.2
    else:
        steps, weights = lattice(manifold, turns=2.0)
    here = np.repeat(t, len(steps), axis=0)
    log_mass = (manifold.log_step_volume(here, steps)
                - manifold.prior_jet(manifold.retract(here, steps), 0)[0])
    found = np.log(weights @ np.exp(log_mass))
    assert found == pytest.approx(manifold.log_prior_volume(), abs=1e-6)


@every
def test_distance_is_a_metric(manifold):
    a, b, c = (draws(manifold, 200, seed) for seed in range(3))
    np.testing.assert_allclose(manifold.distance(a, b), manifold.distance(b, a), atol=1e-14)
    np.testing.assert_allclose(manifold.distance(a, a), 0.0, atol=1e-15)
    slack = manifold.distance(a, b) + manifold.distance(b, c) - manifold.distance(a, c)
    assert slack.min() > -1e-12
    assert manifold.distance(a, b).min() > 0.0


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name != "interval"], ids=str)
def test_a_step_has_the_length_of_the_way(manifold):
    t = draws(manifold, 100)
    length = np.random.default_rng(1).uniform(0, 1.5, size=(100, 1))
    moved = manifold.retract(t, length * tangents(manifold, t))
    way = manifold.distance(t, moved)
    assert (way <= length[:, 0] + 1e-12).all()
    # shorter only where a strip is crossed the other way round
    if manifold.name != "mobius":
        np.testing.assert_allclose(way, length[:, 0], atol=1e-12)


@every
@pytest.mark.parametrize("n", [4, 100, 400])
def test_grid_covers(manifold, n):
    grid = manifold.grid(n)
    assert grid.shape[1] == manifold.latent_dim
    assert 0.4 * n <= len(grid) <= 2.1 * n
    assert on_manifold(manifold, grid)
    t = draws(manifold, 200, seed=5)
    if manifold.name not in BALLS:
        t = np.clip(t, -3.0, 3.0)
    gap = np.min([manifold.distance(t, np.broadcast_to(g, t.shape)) for g in grid], axis=0).max()
    if n == 400:
        assert gap < {1: 0.02, 2: 0.25, 3: 0.9}[2 if manifold.name in BALLS
                                               else manifold.latent_dim]
    first, second = np.triu_indices(len(grid), 1)
    assert manifold.distance(grid[first], grid[second]).min() > 1e-5


@every
def test_ambient_points_tell_coordinates(manifold):
    t = draws(manifold, 200)
    x = manifold.ambient(t)
    assert x.shape == (200, len(manifold.ambient_names))
    back = manifold.from_ambient(x)
    np.testing.assert_allclose(manifold.distance(back, t), 0.0, atol=1e-7)
    assert on_manifold(manifold, back)
    near = manifold.ambient(manifold.retract(t, 1e-6 * tangents(manifold, t)))
    assert np.linalg.norm(near - x, axis=1).max() < 1e-5  # no jump, where an angle wraps either


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name == "mobius"], ids=str)
def test_ambient_points_are_the_same_across_the_seam(manifold):
    seam = np.array([[np.pi - 1e-9, 0.7], [-np.pi + 1e-9, -0.7]])
    first, second = manifold.ambient(seam)
    np.testing.assert_allclose(first, second, atol=1e-8)


@pytest.mark.parametrize("manifold", [m for m in MANIFOLDS if m.name == "projective_plane"],
                         ids=str)
def test_ambient_points_of_a_line_have_no_sign(manifold):
    t = draws(manifold, 20)
    np.testing.assert_array_equal(manifold.ambient(t), manifold.ambient(-t))


@every
def test_ambient_zero_has_no_direction(manifold):
    origin = manifold.from_ambient(np.zeros((1, len(manifold.ambient_names))))
    curved = manifold.name in BALLS or "a" in axes(manifold)
    assert np.isnan(origin).any() == curved
