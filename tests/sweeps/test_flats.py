"""Curves of sweeps against flats in their places."""

import numpy as np
from scipy.stats import multivariate_normal

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.manifolds import Circle
from reml_sae.sweeps import SpanMoments


def rises(Z, n_harmonics):
    model = rs.SAEManifold(n_atoms=4, topology=Circle(n_harmonics), assignment="topk",
                           solver="sweeps", random_state=0).fit(Z)
    return np.array([atom.over_flat for atom in model.atoms_])


def clouds(seed, n=1000, p=12, K=4):
    """Rows of planes, Gaussian in them."""
    rng = np.random.default_rng(seed)
    labels, planes = rng.integers(K, size=n), np.linalg.qr(rng.normal(size=(K, p, 2)))[0]
    within = np.einsum("npq,nq->np", planes[labels], rng.normal(size=(n, 2)))
    return (2.0 * rng.normal(size=(K, p)))[labels] + within + 0.2 * rng.normal(size=(n, p))


def test_circles_are_above_flats_and_clouds_are_not():
    """A circle whose amplitudes vary as the radius of a cloud does is nearly as good."""
    for seed, harmonics in enumerate((1, 1, 3)):
        circles = planted_circles(1000, 12, 4, n_active=1, noise_sd=0.2, random_state=seed).Z
        assert (rises(circles, harmonics) > 0.4).all()
        found = rises(clouds(seed), harmonics)
        assert (found < 0.05).all() and found.mean() < 0.0


def test_a_flat_costs_its_density_and_the_price_of_its_decoder():
    """By the normal density, at a plane in four columns; other flats are no better."""
    rng = np.random.default_rng(0)
    n, p, phi = 200, 4, 0.1
    Z = rng.normal(size=(n, p)) * [2.0, 1.0, phi**0.5, phi**0.5] + 1.0
    rest = rng.normal(size=n)
    moments = SpanMoments(np.array([n]), Z.sum(axis=0)[None], (Z.T @ Z)[None],
                          np.array([rest @ rest]))
    values, vectors = np.linalg.eigh(np.cov(Z.T, bias=True))
    axes = vectors[:, -2:] * np.sqrt(values[-2:] - phi)
    full = np.zeros((p + 1, p + 1))
    full[:p, :p] = axes @ axes.T
    density = multivariate_normal(np.append(Z.mean(axis=0), 0.0), full + phi * np.eye(p + 1))
    price = (Z.mean(axis=0) ** 2).sum() + (axes**2).sum() + 3 * (p + 1) * np.log1p(n / phi)
    exact = 0.5 * price - density.logpdf(np.column_stack([Z, rest])).sum()
    assert np.allclose(moments.flats(phi, p + 1, 2), exact, rtol=1e-12)
    assert moments.flats(phi, p + 1, 4) == moments.flats(phi, p + 1, 2)
    half = SpanMoments(np.array([n // 2]), Z[:100].sum(axis=0)[None], (Z[:100].T @ Z[:100])[None],
                       np.array([rest[:100] @ rest[:100]]))
    other = SpanMoments(np.array([n // 2]), Z[100:].sum(axis=0)[None], (Z[100:].T @ Z[100:])[None],
                        np.array([rest[100:] @ rest[100:]]))
    assert np.allclose((half + other).flats(phi, p + 1, 2), exact, rtol=1e-12)
