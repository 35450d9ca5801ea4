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


def clouds(seed, n=600, p=12, K=4):
    """Rows of planes, Gaussian in them."""
    rng = np.random.default_rng(seed)
    labels, planes = rng.integers(K, size=n), np.linalg.qr(rng.normal(size=(K, p, 2)))[0]
    within = np.einsum("npq,nq->np", planes[labels], rng.normal(size=(n, 2)))
    return (2.0 * rng.normal(size=(K, p)))[labels] + within + 0.2 * rng.normal(size=(n, p))


def test_circles_are_above_flats_and_clouds_are_not():
    """A circle whose amplitudes vary as the radius of a cloud does is nearly as good."""
    for seed, harmonics in enumerate((1, 1, 3)):
        circles = planted_circles(600, 12, 4, n_active=1, noise_sd=0.2, random_state=seed).Z
        assert (rises(circles, harmonics) > 0.4).all()
        found = rises(clouds(seed), harmonics)
        assert (found < 0.05).all() and found.mean() < 0.0


def test_auto_has_planes_for_clouds_and_circles_for_circles():
    """Four of each in one fit; atoms that have rows of both are the search's fault."""
    circles = planted_circles(600, 12, 4, n_active=1, noise_sd=0.2, random_state=4).Z
    Z, fits = np.concatenate([clouds(4), circles]), []
    for topology in (Circle(2), "auto"):
        fits.append(rs.SAEManifold(n_atoms=8, topology=topology, assignment="topk",
                                   solver="sweeps", random_state=0).fit(Z))
    shares = [(np.flatnonzero(fits[1].codes_.labels == k) < 600).mean() for k in range(8)]
    assert sum(min(share, 1.0 - share) < 0.05 for share in shares) >= 6
    for share, atom in zip(shares, fits[1].atoms_, strict=True):
        if min(share, 1.0 - share) < 0.05:
            assert atom.topology.name == ("euclidean" if share > 0.5 else "circle")
            assert (atom.over_flat is None) == (share > 0.5)
    assert fits[1].converged_ and fits[1].criterion_ < fits[0].criterion_ - 100.0


def test_planes_by_sweeps_have_nearly_the_v_of_the_search():
    """And their rows; sweeps weigh decoders by the curvature at known coordinates."""
    Z = clouds(0, n=300, p=6, K=2)
    fits = [rs.SAEManifold(n_atoms=2, topology="plane", assignment="topk", noise="isotropic",
                           n_init=1, solver=solver, random_state=0).fit(Z)
            for solver in ("sweeps", "search")]
    assert abs(fits[0].criterion_ - fits[1].criterion_) < 5.0
    np.testing.assert_allclose(fits[0].predict(Z), fits[1].predict(Z), atol=0.05)


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
    # entries of the axes have a mean square of a half, which two is the best precision of
    square = (axes**2).sum()
    size = 2 * (p + 1) / square
    assert size < 4.0
    price = (Z.mean(axis=0) ** 2).sum() + size * square
    price += (p + 1) * (np.log1p(n / phi) + 2 * np.log1p(n / (size * phi)))
    exact = 0.5 * price - density.logpdf(np.column_stack([Z, rest])).sum()
    found, dims = moments.flats(phi, p + 1, 2)
    assert np.allclose(found, exact, rtol=1e-12) and dims == 2
    assert moments.flats(phi, p + 1, 4) == (found, dims)
    frame = np.eye(p + 1)[:, :p]
    B = moments.decoder(0, 2, phi, frame)
    np.testing.assert_allclose(B[1:].T @ B[1:], full, atol=1e-12)
    np.testing.assert_allclose(B[0], np.append(Z.mean(axis=0), 0.0))
    half = SpanMoments(np.array([n // 2]), Z[:100].sum(axis=0)[None], (Z[:100].T @ Z[:100])[None],
                       np.array([rest[:100] @ rest[:100]]))
    other = SpanMoments(np.array([n // 2]), Z[100:].sum(axis=0)[None], (Z[100:].T @ Z[100:])[None],
                        np.array([rest[100:] @ rest[100:]]))
    assert np.allclose((half + other).flats(phi, p + 1, 2)[0], exact, rtol=1e-12)
