"""Starts on a latent grid: planted atoms of every topology, degenerate rows, determinism."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from reml_sae.errors import InputError
from reml_sae.manifolds import (
    Circle,
    Cylinder,
    Duchon,
    Euclidean,
    Interval,
    Mobius,
    ProjectivePlane,
    Sphere,
    Torus,
)
from reml_sae.relaxations.grid_mixture import (
    State,
    anneal,
    expected_moments,
    fit_decoder,
    make_grid,
    responsibilities,
    smooth_functions,
)
from reml_sae.relaxations.latent_grid import latent_grid_starts, nearest_coordinates
from reml_sae.relaxations.policy import GridPolicy

GRID = GridPolicy()
SMALL = GridPolicy(coarse_grid=60, fine_grid=120, more_polished=1)
"""Where no more is asked than that starts are sound."""
ATOMS = [Circle(2), Interval(8), Sphere(2), ProjectivePlane(2), Torus(1), Cylinder(1, 1), Mobius(1),
         Euclidean(2, 2), Duchon(1)]
every = pytest.mark.parametrize("atom", ATOMS, ids=lambda atom: atom.name)


def angles(rng, n):
    return rng.uniform(-np.pi, np.pi, n)


def unit_vectors(rng, n):
    v = rng.normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def ellipse(rng, n):
    t = angles(rng, n)
    return np.column_stack([np.cos(t), 0.4 * np.sin(t)])


def winding(rng, n):
    t = angles(rng, n)
    return np.column_stack([f(h * t) for h in (1, 2, 3) for f in (np.cos, np.sin)]) / np.sqrt(3.0)


def arc(rng, n):
    t = rng.uniform(0.0, 1.5 * np.pi, n)
    return np.column_stack([np.cos(t), np.sin(t)])


def s_curve(rng, n):
    t = rng.uniform(-1.5 * np.pi, 1.5 * np.pi, n)
    return np.column_stack([np.sin(t), np.sign(t) * (np.cos(t) - 1.0)])


def ellipsoid(rng, n):
    return unit_vectors(rng, n) * [1.3, 1.0, 0.6]


def clifford(rng, n):
    a, b = angles(rng, n), angles(rng, n)
    return np.column_stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)])


def donut(rng, n):
    a, b = angles(rng, n), angles(rng, n)
    radius = 1.0 + 0.4 * np.cos(b)
    return np.column_stack([radius * np.cos(a), radius * np.sin(a), 0.4 * np.sin(b)])


def cylinder(rng, n):
    t = angles(rng, n)
    return np.column_stack([np.cos(t), np.sin(t), 0.7 * rng.normal(size=n)])


def strip(rng, n):
    t, w = angles(rng, n), 0.35 * rng.normal(size=n)
    radius = 1.0 + w * np.cos(t / 2.0)
    return np.column_stack([radius * np.cos(t), radius * np.sin(t), w * np.sin(t / 2.0)])


def veronese(rng, n):
    x, y, z = unit_vectors(rng, n).T
    return np.column_stack([2 * x * y, 2 * y * z, 2 * x * z, x**2 - y**2, np.sqrt(3) * z**2])


def sheet(rng, n):
    a, b = rng.normal(size=(2, n))
    return np.column_stack([a, 0.7 * b, 0.4 * a**2, 0.3 * a * b])


def wave(rng, n):
    t = rng.normal(size=n)
    return np.column_stack([t, np.sin(1.7 * t)])


def planted(signal, n=250, r=7, sd=0.05, seed=0):
    """Rows with noise, and without, in r columns."""
    rng = np.random.default_rng(seed)
    Y = signal(rng, n)
    Y = (Y - Y.mean(axis=0)) @ np.linalg.qr(rng.normal(size=(r, r)))[0][: Y.shape[1]]
    return Y + sd * rng.normal(size=Y.shape), Y


def unexplained(atom, start, signal):
    """Share of the noiseless signal that a start misses."""
    found = atom.basis(start.coordinates) @ start.coefficients
    return ((found - signal) ** 2).sum() / (signal**2).sum()


@pytest.mark.parametrize(
    ("signal", "atom"),
    [(ellipse, Circle(2)), (winding, Circle(3)), (arc, Interval(8)), (s_curve, Interval(8)),
     (ellipsoid, Sphere(2)), (clifford, Torus(1)), (donut, Torus(1)), (cylinder, Cylinder(1, 1)),
     (strip, Mobius(1)), (veronese, ProjectivePlane(2)), (sheet, Euclidean(2, 2)),
     (wave, Duchon(1))],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_planted_atoms_are_reached(signal, atom):
    X, Y = planted(signal)
    starts = latent_grid_starts(X, atom, 1, np.random.default_rng(0), GRID)
    # noise along the atom is all that may remain; a fold or a tear leaves several times as much
    intrinsic = 2 if atom.latent_dim > 1 else 1
    floor = (intrinsic + atom.basis_size * 7 / 250) * 0.05**2 / (Y**2).sum(axis=1).mean()
    assert unexplained(atom, starts[0], Y) < 2.0 * floor
    assert 1.0 - starts[0].explained < 7 * 0.05**2 / (Y**2).sum(axis=1).mean()


@every
def test_contract(atom):
    X = planted(sheet, n=40, r=5, sd=0.1)[0]
    starts = latent_grid_starts(X, atom, 2, np.random.default_rng(0), SMALL)
    again = latent_grid_starts(X, atom, 2, np.random.default_rng(0), SMALL)
    assert 1 <= len(starts) <= 2
    assert [s.objective for s in starts] == sorted(s.objective for s in starts)
    for start, same in zip(starts, again, strict=True):
        assert start.coordinates.shape == (40, atom.latent_dim)
        assert start.coefficients.shape == (atom.basis_size, 5)
        np.testing.assert_array_equal(start.coordinates, same.coordinates)
        np.testing.assert_array_equal(start.coefficients, same.coefficients)
        residual = X - atom.basis(start.coordinates) @ start.coefficients
        share = (residual**2).sum() / ((X - X.mean(0)) ** 2).sum()
        assert start.explained == pytest.approx(1.0 - share)


def test_starts_are_distinct():
    X = planted(winding, n=200)[0]
    starts = latent_grid_starts(X, Circle(3), 3, np.random.default_rng(0), GRID)
    means = [Circle(3).basis(s.coordinates) @ s.coefficients for s in starts]
    assert len(starts) == 3
    assert min(((a - b) ** 2).mean() for i, a in enumerate(means) for b in means[:i]) > 0.05**2


def test_units_and_centre():
    """Starts follow the rows: 1e4 X + b has the same coordinates and a scaled decoder."""
    X = planted(ellipse, n=150)[0]
    one, = latent_grid_starts(X, Circle(2), 1, np.random.default_rng(0), GRID)
    other, = latent_grid_starts(1e4 * X + 7.0, Circle(2), 1, np.random.default_rng(0), GRID)
    assert Circle(2).distance(one.coordinates, other.coordinates).max() < 1e-5
    moved = 1e4 * one.coefficients
    moved[0] += 7.0
    np.testing.assert_allclose(other.coefficients, moved, atol=0.1)
    assert other.objective == pytest.approx(one.objective + X.size * np.log(1e4), abs=0.01)


@every
def test_degenerate_rows_are_finite(atom):
    rng = np.random.default_rng(0)
    line = np.outer(rng.normal(size=18), rng.normal(size=4))
    few = rng.normal(size=(3, 4))
    repeated = np.repeat(few, 6, axis=0)
    for X in (line, few, repeated, line[:, :1]):
        for start in latent_grid_starts(X, atom, 1, np.random.default_rng(0), SMALL):
            for value in (start.coordinates, start.coefficients, start.explained, start.objective):
                assert np.isfinite(value).all()
            assert start.explained <= 1.0


@every
@pytest.mark.parametrize("X", [np.zeros((20, 3)), np.full((20, 3), 0.1), np.ones((1, 3))],
                         ids=["zero", "constant", "single"])
def test_equal_rows_make_a_point(atom, X):
    start, = latent_grid_starts(X, atom, 3, np.random.default_rng(0), GRID)
    assert start.explained == 0.0
    np.testing.assert_allclose(atom.basis(start.coordinates) @ start.coefficients, X, atol=1e-12)


@pytest.mark.parametrize(
    ("X", "n_starts", "words"),
    [(np.zeros((0, 3)), 1, "at least one row"), (np.zeros((3, 0)), 1, "at least one row"),
     (np.zeros(3), 1, "matrix"), (np.full((3, 3), np.nan), 1, "not finite"),
     (np.eye(3), 0, "n_starts")],
)
def test_bad_input(X, n_starts, words):
    with pytest.raises(InputError, match=words):
        latent_grid_starts(X, Circle(1), n_starts, np.random.default_rng(0), GRID)


def test_coefficients_must_fit():
    with pytest.raises(InputError, match=r"\(5, 2\)"):
        nearest_coordinates(np.eye(2), Circle(2), np.zeros((3, 2)), GRID)


@every
def test_nearest_coordinates(atom):
    """Rows on the atom are found again, and no grid point is nearer to noisy ones."""
    rng = np.random.default_rng(1)
    scale = np.exp(-0.7 * np.arange(atom.basis_size))[:, None]
    B = scale * rng.normal(size=(atom.basis_size, atom.basis_size))
    grid = atom.grid(37)
    X = atom.basis(grid) @ B
    t, squares = nearest_coordinates(X, atom, B, GRID)
    assert np.median(squares) < 1e-12 * (X**2).sum(axis=1).mean()
    noisy = X + 0.1 * rng.normal(size=X.shape)
    t, squares = nearest_coordinates(noisy, atom, B, GRID)
    np.testing.assert_allclose(squares, ((noisy - atom.basis(t) @ B) ** 2).sum(axis=1))
    mean = atom.basis(atom.grid(500)) @ B
    best = ((noisy[:, None] - mean) ** 2).sum(axis=2).min(axis=1)
    assert (squares <= best * (1.0 + 1e-9)).all()


def test_rows_beyond_the_end_do_not_run_away():
    atom = Interval(8)
    start, = latent_grid_starts(planted(arc, n=200)[0], atom, 1, np.random.default_rng(0), GRID)
    ends = atom.basis(np.array([[-6.0], [6.0]])) @ start.coefficients
    tangent = ends - atom.basis(np.array([[-1.5], [1.5]])) @ start.coefficients
    free = nearest_coordinates(ends + 2.0 * tangent, atom, start.coefficients, GRID)[0]
    held = nearest_coordinates(ends + 2.0 * tangent, atom, start.coefficients, GRID, 0.05**2)[0]
    assert (np.abs(free) < 20.0).all()
    assert (np.abs(held) < np.abs(free)).all()


def test_many_rows_are_sampled():
    X, Y = planted(ellipse, n=5000)
    start, = latent_grid_starts(X, Circle(2), 1, np.random.default_rng(0), GRID)
    assert start.coordinates.shape == (5000, 1)
    assert unexplained(Circle(2), start, Y) < 0.01


@every
def test_smooth_functions(atom):
    """Orthonormal and of mean zero under the grid's weights, and not rough."""
    grid = make_grid(atom, 500)
    V = smooth_functions(grid)
    values = grid.basis @ V.T
    weight = np.exp(grid.log_weight)
    assert weight.sum() == pytest.approx(1.0)
    np.testing.assert_allclose((values * weight[:, None]).T @ values, np.eye(len(V)), atol=1e-9)
    np.testing.assert_allclose(weight @ values, 0.0, atol=1e-9)
    np.testing.assert_allclose(V @ grid.roughness, 0.0, atol=1e-9)


def test_likelihood_of_a_line_is_gaussian():
    """Rows t b + noise have the density N(0, b b' + s2 I); means of t are its regression."""
    b, variance = np.array([1.0, -0.5, 0.2]), 0.3
    t = np.random.default_rng(0).uniform(-1.5, 1.5, 50)
    X = np.outer(t, b)
    grid = make_grid(Euclidean(1, 1), 200)
    R, loss = responsibilities(X, grid, State(np.vstack([np.zeros(3), b]), variance, 1.0))
    exact = multivariate_normal(np.zeros(3), np.outer(b, b) + variance * np.eye(3))
    assert loss == pytest.approx(-exact.logpdf(X).sum(), abs=0.3)
    np.testing.assert_allclose(R @ grid.points[:, 0], X @ b / (b @ b + variance), atol=0.02)


def test_em_at_a_fixed_variance_ascends():
    """A sweep at constant s2 and lambda lowers the penalised negative log likelihood."""
    X = planted(ellipse, n=100, r=3, sd=0.1)[0]
    grid = make_grid(Circle(3), 60)
    state = State(smooth_functions(grid).T @ np.eye(2, 3), 0.05, 2.0)
    values = []
    for _ in range(15):
        R, loss = responsibilities(X, grid, state)
        np.testing.assert_allclose(R.sum(axis=1), 1.0)
        B = state.decoder
        values.append(loss + 0.5 * (B * (B + 2.0 * grid.roughness @ B)).sum())
        moments = expected_moments(X, grid, state)
        gram = grid.basis.T @ np.diag(R.sum(axis=0)) @ grid.basis
        np.testing.assert_allclose(moments.gram, gram, atol=1e-9)
        np.testing.assert_allclose(moments.right, grid.basis.T @ R.T @ X, atol=1e-9)
        state = State(fit_decoder(moments, grid, 0.05, 2.0)[0], 0.05, 2.0)
    assert (np.diff(values) < 1e-9).all()
    assert values[-1] < values[0] - 1.0


def test_annealing_finds_the_noise():
    X = planted(ellipse, n=400, r=6, sd=0.1)[0]
    grid = make_grid(Circle(2), 200)
    state = anneal(X, grid, State(smooth_functions(grid).T @ np.linalg.svd(X)[2][:2], 0.5, 100.0))
    assert np.sqrt(state.variance) == pytest.approx(0.1, rel=0.05)
