"""Small mixed models of every family, covariance and method, for tests of derivatives and of V."""

import numpy as np

from reml_sae.families import Binomial, StudentT, get_family
from reml_sae.models import MixedModel, Smooth

PSI = {"gaussian": [-1.0], "gamma": [-1.0], "negative_binomial": [0.8], "student_t": [-0.7, 1.5],
       "student_t-4": [-0.7], "poisson": [], "binomial": [], "tweedie": [-0.5, 0.0]}
FAMILIES = tuple(PSI)
LEVELS = 4


def family_of(name, n):
    if name == "binomial":
        return Binomial(n_trials=1 + np.arange(n) % 3)
    return StudentT(df=4.0) if name == "student_t-4" else get_family(name)


def bumps(t, k):
    """Centred Gaussian bumps at k places in [-1, 1], (n, k)."""
    basis = np.exp(-2.0 * (k - 1) * (t[:, None] - np.linspace(-1.0, 1.0, k)) ** 2)
    return basis - basis.mean(axis=0)


def second_difference(k):
    D = np.diff(np.eye(k), 2, axis=0)
    return D.T @ D


def ordinary(k, order):
    """A penalty of differences of another order, for two strengths on one block."""
    D = np.diff(np.eye(k), order, axis=0)
    return D.T @ D


def build(family="gaussian", *, covariance="diagonal", method="REML", groups=8, n=70, terms=1,
          smooth=True, crossed=False, offset=True, seed=0, **extra):
    """Ragged groups with an intercept and a slope, a smooth with two strengths, crossed effects."""
    rng = np.random.default_rng(seed)
    g = np.r_[np.arange(groups), rng.integers(0, groups, n - groups)] if groups else None
    t = rng.uniform(-1.0, 1.0, n)
    X, penalties = [np.ones((n, 1)), rng.normal(size=(n, 1))], []
    if smooth:
        where = slice(2, 7)
        X.append(bumps(t, 5))
        penalties.append(Smooth(where, [second_difference(5), np.eye(5)], name="t"))
    if crossed:
        level = rng.integers(0, LEVELS, n)
        start = sum(block.shape[1] for block in X)
        X.append((level[:, None] == np.arange(LEVELS)).astype(float))
        penalties.append(Smooth(slice(start, start + LEVELS), [np.eye(LEVELS)], name="level"))
    X = np.hstack(X)
    shift = 0.1 * rng.normal(size=n) if offset else np.zeros(n)
    eta = shift + 0.5 + 0.5 * X[:, 1] + (np.sin(2.0 * t) if smooth else 0.0)
    Z = None
    if groups:
        Z = np.column_stack([np.ones(n), t])
        eta += (rng.normal(size=(groups, 2)) @ np.array([[0.6, 0.0], [0.2, 0.4]]).T)[g] @ np.ones(2)
        if terms == 2:
            Z = [Z, rng.normal(size=(n, 1))]
    fam = family_of(family, n)
    y = fam.sample(rng, eta, np.array(PSI[family]))
    return MixedModel(y, X, groups=g, Z=Z, family=fam, covariance=covariance, penalties=penalties,
                      method=method, offset=shift if offset else None, **extra)


def typical_rho(model, seed=1):
    """Outer parameters near the start, but at no special place."""
    rho = model.initial_rho()
    return rho + 0.3 * np.random.default_rng(seed).normal(size=len(rho))


MODELS = {
    **{f"{name}-{kind}": (lambda name=name, kind=kind: build(name, covariance=kind))
       for name in FAMILIES for kind in ("diagonal", "full")},
    **{f"{name}-{method}": (lambda name=name, method=method: build(
        name, covariance="full", method=method)) for name in ("gaussian", "binomial", "gamma",
                                                              "student_t")
       for method in ("ML", "Laplace")},
    "two-terms": lambda: build("poisson", terms=2, covariance=["full", "diagonal"]),
    "crossed-ml": lambda: build("binomial", crossed=True, smooth=False, method="ML"),
    "crossed-laplace": lambda: build("poisson", crossed=True, method="Laplace"),
    "gam": lambda: build("negative_binomial", groups=0),
    "gam-ml": lambda: build("gamma", groups=0, method="ML"),
    "glm": lambda: build("gamma", groups=0, smooth=False),
    "no-fixed-smooth": lambda: build("gaussian", smooth=False, method="ML"),
}
