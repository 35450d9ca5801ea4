"""Priors whose precision differs from row to row."""

import numpy as np

from reml_sae.penalties.row_priors import (
    AuxConditionalPriorPenalty,
    ParametricAuxConditionalPriorPenalty,
)
from tests.penalties.cases._case import Case, Small

RNG = np.random.default_rng(23)


def positive_definite(rng, n, d):
    root = rng.normal(size=(n, d, d))
    return root @ root.transpose(0, 2, 1) + 0.3 * np.eye(d)


def quadratic(precisions):
    def reference(target, strengths):
        total = 0.0
        for row, matrix in zip(target, precisions, strict=True):
            for a, x in enumerate(row):
                for b, y in enumerate(row):
                    total += 0.5 * strengths[0] * x * matrix[a][b] * y
        return total
    return reference


def parametric(aux, w, rho, d):
    alpha, b, mu = rho[:d], rho[d:2 * d], rho[2 * d:].reshape(d, -1)

    def reference(target, strengths):
        total = 0.0
        for row, u in zip(target, aux, strict=True):
            for k, t in enumerate(row):
                square = sum((x - m) ** 2 for x, m in zip(u, mu[k], strict=True))
                precision = w * (np.exp(alpha[k]) + np.log(1 + np.exp(b[k])) * square)
                total += 0.5 * precision * t * t - 0.5 * np.log(precision)
        return total
    return reference


def planted_fixed(rng):
    rho, precisions = np.array([0.8]), positive_definite(rng, 5000, 2)
    root = np.linalg.cholesky(np.exp(0.8) * precisions)
    noise = rng.normal(size=(5000, 2, 1))
    return (AuxConditionalPriorPenalty(precisions=precisions),
            np.linalg.solve(root.transpose(0, 2, 1), noise)[:, :, 0], rho)


def planted_parametric(rng):
    rho = np.array([0.4, 0.7, 0.5])
    aux = rng.normal(size=(20_000, 1))
    precision = np.exp(0.4) + np.log1p(np.exp(0.7)) * (aux - 0.5) ** 2
    return (ParametricAuxConditionalPriorPenalty(aux=aux, latent_dim=1),
            rng.normal(size=aux.shape) / np.sqrt(precision), rho)


PRECISIONS = positive_definite(RNG, 3, 2)
AUX = np.array([[1.0, -0.5], [-0.25, 1.5], [-0.75, -1.0]])  # of mean zero, where mu is held
RHO = np.array([0.3, -0.4, 0.6, -1.2, 0.2, 0.1, -0.3, 0.5])
CASES = [
    Case(AuxConditionalPriorPenalty(precisions=PRECISIONS, weight=1.3), RNG.normal(size=(3, 2)),
         quadratic(PRECISIONS),
         lambda n: (AuxConditionalPriorPenalty(precisions=positive_definite(RNG, n, 2)),
                    RNG.normal(size=(n, 2))),
         extremes=(np.zeros((3, 2)), 1e6 * np.ones((3, 2)), 1e-9 * np.ones((3, 2))),
         small=Small(AuxConditionalPriorPenalty(precisions=PRECISIONS[:1]), 1, np.eye(2),
                     rho=np.array([0.4])),
         planted=planted_fixed, planted_tolerance=0.06),
    Case(ParametricAuxConditionalPriorPenalty(aux=AUX, latent_dim=2, weight=1.7),
         RNG.normal(size=(3, 2)), parametric(AUX, 1.7, RHO, 2),
         lambda n: (ParametricAuxConditionalPriorPenalty(aux=RNG.normal(size=(n, 2)),
                                                         latent_dim=2), RNG.normal(size=(n, 2))),
         extremes=(np.zeros((3, 2)), 1e6 * np.ones((3, 2)), 1e-9 * np.ones((3, 2))),
         rho=RHO,
         small=Small(ParametricAuxConditionalPriorPenalty(aux=AUX[:1], latent_dim=1), 1, np.eye(1),
                     rho=RHO[::2]),
         planted=planted_parametric, planted_tolerance=0.2),
]
