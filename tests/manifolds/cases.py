"""Topologies under test, and what is known of them apart from their code."""

import numpy as np
import pytest

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

MANIFOLDS = [
    Circle(1), Circle(2), Circle(5),
    Euclidean(1, 1), Euclidean(1, 3), Euclidean(2, 1), Euclidean(2, 2), Euclidean(3, 2),
    Sphere(1), Sphere(2), Sphere(4), ProjectivePlane(2), ProjectivePlane(4),
    Torus(1), Torus(2), Interval(5), Interval(8), Interval(15),
    Cylinder(1, 1), Cylinder(2, 3), Mobius(1), Mobius(3),
    Duchon(1, 10), Duchon(2, 9), Duchon(3, 12),
]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=str)

AXES = {"circle": "a", "torus": "aa", "cylinder": "an", "mobius": "an"}
"""Each coordinate an angle (a) or normal (n); all normal in the other flat topologies."""
BALLS = {"sphere": np.pi, "projective_plane": np.pi / 2}
"""Topologies of unit vectors, and the radius of the ball of steps that covers them once."""


def axes(manifold):
    return AXES.get(manifold.name, "n" * manifold.latent_dim)


def draws(manifold, n, seed=0):
    """Coordinates (n, d) drawn from the prior."""
    rng = np.random.default_rng(seed)
    if manifold.name in BALLS:
        t = rng.normal(size=(n, 3))
        return t / np.linalg.norm(t, axis=1, keepdims=True)
    return np.column_stack([rng.uniform(-np.pi, np.pi, n) if axis == "a" else rng.normal(size=n)
                            for axis in axes(manifold)])


def tangents(manifold, t, seed=100):
    """Unit tangent vectors (n, d) at coordinates."""
    v = np.random.default_rng(seed).normal(size=t.shape)
    if manifold.name in BALLS:
        v -= (v * t).sum(1, keepdims=True) * t
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def lattice(manifold, turns=1.0):
    """Nodes (n, d) and weights (n,) over the coordinates of a flat topology.

    Angles cover (-pi, pi) times ``turns`` at the middles of cells.
    """
    names = axes(manifold)
    n_angles, spacing = 48, {1: 0.02, 2: 0.1, 3: 0.35}[len(names)]
    cells = np.arange(-turns * n_angles / 2, turns * n_angles / 2) + 0.5
    lines = [cells * 2 * np.pi / n_angles if axis == "a"
             else np.arange(-8.0, 8.0, spacing) for axis in names]
    nodes = np.stack([x.ravel() for x in np.meshgrid(*lines, indexing="ij")], axis=1)
    return nodes, np.full(len(nodes), np.prod([line[1] - line[0] for line in lines]))


def sphere_nodes(manifold):
    """Unit vectors (n, 3) and area weights (n,) of the sphere, or of its half."""
    z, weights = np.polynomial.legendre.leggauss(12)
    angle = 2 * np.pi * np.arange(24) / 24
    radius = np.sqrt(1 - z**2)
    nodes = np.stack([np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)),
                      np.outer(z, np.ones(24))], axis=2).reshape(-1, 3)
    share = 1.0 if manifold.name == "sphere" else 0.5
    return nodes, share * np.repeat(weights, 24) * 2 * np.pi / 24


def prior_nodes(manifold):
    """Nodes (n, d) and their prior masses (n,), whose sum is the prior's volume.

    The radius of unit vectors is integrated by Laplace, with the curvature of the prior.
    """
    if manifold.name in BALLS:
        nodes, weights = sphere_nodes(manifold)
        value, _, hessian = manifold.prior_jet(nodes, 2)
        radial = np.einsum("ni,nij,nj->n", nodes, hessian, nodes)
        return nodes, weights * np.exp(-value) * np.sqrt(2 * np.pi / radial)
    nodes, weights = lattice(manifold)
    return nodes, weights * np.exp(-manifold.prior_jet(nodes, 0)[0])


def images(manifold, t):
    """Other coordinates of the same points."""
    turn = 2 * np.pi * np.eye(2)
    return {
        "circle": lambda: [t + 2 * np.pi, t - 4 * np.pi],
        "torus": lambda: [t + turn[0], t - turn[1], t + turn[0] + turn[1]],
        "cylinder": lambda: [t + turn[0], t - turn[0]],
        "mobius": lambda: [t * [1, -1] + turn[0], t * [1, -1] - turn[0], t + 2 * turn[0]],
        "projective_plane": lambda: [-t],
    }.get(manifold.name, list)()
