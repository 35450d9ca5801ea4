"""Small SAE-manifold models of every shape, for tests of derivatives and of the criterion."""

from functools import cache

import numpy as np

from reml_sae import penalties as pen
from reml_sae.assignments import get_assignment
from reml_sae.assignments.softmax import SoftmaxChart
from reml_sae.engine import Theta, solve_inner
from reml_sae.families import Binomial, Gamma, NegativeBinomial, Poisson, StudentT
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
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.priors import with_own_priors
from reml_sae.models.sae.single.kinds import packed
from reml_sae.models.sae.start import solve_beta

LOG_PRECISION = 4.0
"""Of log amplitudes, where rows are integrated out."""


def roughness_terms(atoms):
    return [PenaltyTerm(pen.QuadraticPenalty(S=atom.roughness()), "decoder", k)
            for k, atom in enumerate(atoms) if atom.roughness() is not None]


def build(atoms, *, n=30, p=5, noise=0.2, dispersion=0.3, temperature=1.0, ard=False, seed=1,
          active_share=0.3, extra=(), own=True, stretch=1.0, family=None, assignment="softmax",
          apart=False):
    """A noisy circle seen by any atoms, at a random state; rows carry a random set of atoms.

    ``own`` adds the atoms' roughness and the entropy of several atoms; ``stretch`` makes the circle
    an ellipse; under gates ``apart`` gives every row one atom or none.
    """
    rng = np.random.default_rng(seed)
    t = rng.uniform(-np.pi, np.pi, n)
    frame = np.linalg.qr(rng.normal(size=(p, 2)))[0]
    Z = np.column_stack([stretch * np.cos(t), np.sin(t)]) @ frame.T
    Z += noise * rng.normal(size=(n, p))
    Z -= Z.mean(0)
    unit = np.sqrt((Z**2).mean())
    offset, psi = None, [np.log(dispersion)]
    if family is not None:  # the same circle as the linear predictor
        offset, psi, unit = 0.3 * rng.normal(size=p), 0.4 * np.ones(family.n_psi), 1.0
        Z = family.sample(rng, Z + offset, psi)
    k = len(atoms)
    terms = roughness_terms(atoms) if own else []
    chart = (SoftmaxChart(k, temperature) if assignment == "softmax"
             else get_assignment(assignment, k))
    if k > 1 and own and chart.is_mixture:
        entropy = pen.SoftmaxAssignmentSparsityPenalty(k_atoms=k, temperature=temperature)
        terms = [PenaltyTerm(entropy, "logits"), *terms]
    if ard:
        terms += [PenaltyTerm(pen.ARDPenalty(latent_dim=atom.latent_dim), "coordinates", j)
                  for j, atom in enumerate(atoms) if atom.is_euclidean]
    terms = [*terms, *extra]
    active = rng.random((n, k)) < active_share
    active[np.arange(n), rng.integers(0, k, n)] = True
    width = sum(atom.latent_dim for atom in atoms)
    if not chart.is_mixture:  # the circle is the first atom, the others are sometimes added
        active[:, 0] = True
    if apart:
        kinds = k if chart.least_active else k + 1
        active = np.eye(kinds, k, dtype=bool)[rng.integers(0, kinds, n)]
    xi = np.concatenate([0.5 * rng.normal(size=(n, chart.dim)), rng.normal(size=(n, width))],
                        axis=1)
    if chart.name == "threshold_gate":
        xi[:, :k] = 0.3 * xi[:, :k] + active
    for j, atom in enumerate(atoms):
        where = slice(chart.dim + sum(a.latent_dim for a in atoms[:j]), None)
        block = xi[:, where][:, :atom.latent_dim]
        if j == 0:
            block[:, 0] = t + 0.1 * rng.normal(size=n)
        block[:] = atom.retract(block, np.zeros_like(block))
    size = sum(atom.basis_size for atom in atoms) + chart.has_intercept
    beta = rng.normal(size=(size, p))
    rho = np.concatenate([*(term.penalty.initial_rho()
                            for term in with_own_priors(chart, terms)), psi])
    model = SAEManifoldModel(Z / unit, atoms, terms, active, Theta(xi, beta), rho, unit=unit,
                             assignment=chart, family=family, offset=offset,
                             integration="laplace")
    if apart:
        rho[["amplitudes" in name for name in model.rho_names]] = LOG_PRECISION
    return model.with_state(solve_beta(model, model.initial_theta(), rho), rho)


MODELS = {
    "ellipse": lambda: build([Circle(1)]),
    "circle-3": lambda: build([Circle(3)]),
    "line": lambda: build([Euclidean(1, 1)], dispersion=0.5),
    "line-ard": lambda: build([Euclidean(1, 1)], dispersion=0.5, ard=True),
    "cubic": lambda: build([Euclidean(1, 3)], dispersion=0.5, seed=3),
    "sheet": lambda: build([Euclidean(2, 2)], dispersion=0.5),
    "two-circles": lambda: build([Circle(2), Circle(1)]),
    "two-circles-warm": lambda: build([Circle(1), Circle(1)], temperature=1.7, seed=5),
    "poisson-circle": lambda: build([Circle(2)], family=Poisson()),
    "binomial-curve": lambda: build([Euclidean(1, 2)], family=Binomial(n_trials=4)),
    "gamma-two": lambda: build([Circle(1), Euclidean(1, 2)], family=Gamma(), seed=4),
    "counts-circle": lambda: build([Circle(1)], family=NegativeBinomial()),
    "heavy-tails": lambda: build([Circle(2)], family=StudentT(df=5.0)),
    "sphere": lambda: build([Sphere(2)], dispersion=0.5),
    "projective-plane": lambda: build([ProjectivePlane(2)], dispersion=0.5, p=7),
    "torus": lambda: build([Torus(1)], dispersion=0.5),
    "interval": lambda: build([Interval(6)], dispersion=0.5),
    "cylinder": lambda: build([Cylinder(1, 1)], dispersion=0.5),
    "mobius": lambda: build([Mobius(1)], dispersion=0.5),
    "duchon": lambda: build([Duchon(1, 6)], dispersion=0.5),
    "duchon-sheet": lambda: build([Duchon(2, 8)], dispersion=0.5),
    "sphere-and-interval": lambda: build([Sphere(1), Interval(6)], dispersion=0.5,
                                         assignment="topk"),
    "topk": lambda: build([Circle(1), Circle(2)], assignment="topk", seed=7),
    "topk-pair": lambda: build([Circle(1), Euclidean(1, 1), Circle(1)], dispersion=0.5, seed=5,
                               assignment={"assignment": "topk", "n_active": 2}),
    "gates": lambda: build([Circle(1), Circle(2)], assignment="ordered_beta_bernoulli"),
    "threshold": lambda: build([Circle(1), Euclidean(1, 1)], assignment="threshold_gate"),
    "topk-apart": lambda: build([Circle(1), Circle(2)], assignment="topk", seed=7, apart=True),
    "gates-apart": lambda: build([Circle(1), Euclidean(1, 1)], dispersion=0.5,
                                 assignment="ordered_beta_bernoulli", apart=True),
    "poisson-gates": lambda: build([Circle(1), Circle(1)], family=Poisson(),
                                   assignment="ordered_beta_bernoulli"),
    "three-shapes": lambda: build([Circle(1), Euclidean(1, 2), Euclidean(2, 1)], dispersion=0.02,
                                  noise=0.5),
}


QUADRATURE = ("ellipse", "circle-3", "line", "cubic", "sheet", "poisson-circle", "binomial-curve",
              "counts-circle", "heavy-tails", "sphere", "projective-plane", "torus", "interval",
              "cylinder", "mobius", "duchon", "topk-apart", "gates-apart")
"""Models whose rows can be integrated out by quadrature."""


def by_quadrature(name):
    """The named model with its rows integrated out by quadrature."""
    return MODELS[name]().with_changes(integration="quadrature")


@cache
def at_mode(name, tol=1e-10, build_model=None):
    """The named model moved to its mode, once; fails where the inner solve does not converge."""
    model = MODELS[name]() if build_model is None else build_model(name)
    rho = model.initial_rho()
    solution = solve_inner(model, rho, tol=tol)
    assert solution.converged, (name, solution.status)
    return model.with_state(solution.theta, rho)


def tangent(model, v):
    """A vector of theta's shape as the model's point has it."""
    if model.kinds and not model.by_quadrature:
        return Theta(packed(model.kinds, v.xi), v.beta)
    return v


def random_direction(model, rng):
    """A direction in theta, tangent to the manifolds of the coordinates."""
    theta = model.initial_theta()
    xi = rng.normal(size=theta.xi.shape) * model.carried
    for k, atom in enumerate(model.atoms):
        if atom.intrinsic_dim < atom.latent_dim:
            t, v = (block[:, model.coordinate_columns(k)] for block in (theta.xi, xi))
            v -= (t * v).sum(axis=1, keepdims=True) * t
    return tangent(model, Theta(xi, rng.normal(size=theta.beta.shape)))
