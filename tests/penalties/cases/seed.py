"""Entropy, ARD and the quadratic penalties of decoders."""

import numpy as np

from reml_sae import penalties as pen
from tests.penalties.cases._case import Case, Small

RNG = np.random.default_rng(3)


def entropy(tau):
    def reference(target, strengths):
        total = 0.0
        for row in target:
            weights = [np.exp((z - max(row)) / tau) for z in row]
            for weight in weights:
                a = weight / sum(weights)
                total -= a * np.log(a) if a > 0 else 0.0
        return strengths[0] * total
    return reference


def ard(target, strengths):
    total = 0.0
    for row in target:
        for t, alpha in zip(row, strengths, strict=True):
            total += 0.5 * alpha * t * t - 0.5 * np.log(alpha)
    return total


def quadratic(S):
    def reference(target, strengths):
        total = 0.0
        for column in target.T:
            for i, x in enumerate(column):
                for j, y in enumerate(column):
                    total += 0.5 * strengths[0] * x * S[i][j] * y
        return total
    return reference


def planted_ard(rng):
    rho = np.array([0.5, -1.0])
    return (pen.ARDPenalty(latent_dim=2), rng.normal(size=(4000, 2)) * np.exp(-0.5 * rho), rho)


def planted_quadratic(rng):
    rho = np.array([0.7])
    target = rng.normal(size=(4, 2000))
    target[1:] *= np.exp(-0.35) / np.arange(1.0, 4.0)[:, None]
    return pen.QuadraticPenalty(S=ROUGHNESS), target, rho


def planted_harmonics(rng):
    rho = np.array([-0.4])
    target = rng.normal(size=(5, 2000))
    target[3:] *= np.exp(0.2) / 4.0
    return pen.HarmonicRoughnessPenalty(period=5), target, rho


def planted_size(rng):
    rho = np.array([-0.4])
    target = rng.normal(size=(3, 2000))
    target[1:] *= np.exp(0.2)
    return pen.DecoderRidgePenalty(functions=3), target, rho


def planted_entropy(rng):
    # a on the 1-simplex with density exp(-lambda H(a)), by inversion on a grid
    rho = np.array([0.8])
    a = np.linspace(0.0, 1.0, 200_001)[1:-1]
    density = np.exp(np.exp(0.8) * (a * np.log(a) + (1 - a) * np.log(1 - a)))
    cumulative = np.cumsum(density)
    draws = np.interp(rng.random(20_000), cumulative / cumulative[-1], a)
    return (pen.SoftmaxAssignmentSparsityPenalty(k_atoms=2),
            np.log(np.column_stack([draws, 1 - draws])), rho)


ROUGHNESS = np.diag([0.0, 1.0, 4.0, 9.0])
CASES = [
    Case(pen.SoftmaxAssignmentSparsityPenalty(k_atoms=4, temperature=0.7), RNG.normal(size=(5, 4)),
         entropy(0.7), lambda n: (pen.SoftmaxAssignmentSparsityPenalty(k_atoms=3),
                                  RNG.normal(size=(n, 3))),
         extremes=(np.zeros((3, 4)), 1e4 * np.eye(4), 1e-9 * np.ones((2, 4))),
         planted=planted_entropy),
    Case(pen.SoftmaxAssignmentSparsityPenalty(k_atoms=2, weight=3.0), RNG.normal(size=(9, 2)),
         entropy(1.0), lambda n: (pen.SoftmaxAssignmentSparsityPenalty(k_atoms=2),
                                  RNG.normal(size=(n, 2))), variant="two"),
    Case(pen.ARDPenalty(latent_dim=2), RNG.normal(size=(6, 2)), ard,
         lambda n: (pen.ARDPenalty(latent_dim=2), RNG.normal(size=(n, 2))),
         extremes=(np.zeros((3, 2)), 1e6 * np.ones((2, 2))),
         small=Small(pen.ARDPenalty(latent_dim=2), 1, np.eye(2), rho=np.array([0.2, -0.5])),
         planted=planted_ard),
    Case(pen.HarmonicRoughnessPenalty(period=7), RNG.normal(size=(7, 3)),
         quadratic(np.diag([0.0, 0, 0, 16, 16, 81, 81])),
         lambda n: (pen.HarmonicRoughnessPenalty(period=5), RNG.normal(size=(5, n))),
         extremes=(np.zeros((7, 2)), 1e6 * np.ones((7, 2))),
         small=Small(pen.HarmonicRoughnessPenalty(period=5), 1, np.eye(5)[:, 3:], 0.25),
         planted=planted_harmonics),
    Case(pen.QuadraticPenalty(S=ROUGHNESS), RNG.normal(size=(4, 2)), quadratic(ROUGHNESS),
         lambda n: (pen.QuadraticPenalty(S=ROUGHNESS), RNG.normal(size=(4, n))),
         extremes=(np.zeros((4, 2)), 1e6 * np.ones((4, 2))),
         small=Small(pen.QuadraticPenalty(S=ROUGHNESS), 1, np.eye(4)[:, 1:]),
         planted=planted_quadratic),
    Case(pen.DecoderRidgePenalty(functions=3), RNG.normal(size=(3, 2)),
         quadratic(np.diag([0.0, 1.0, 1.0])),
         lambda n: (pen.DecoderRidgePenalty(functions=3), RNG.normal(size=(3, n))),
         extremes=(np.zeros((3, 2)), 1e6 * np.ones((3, 2))),
         small=Small(pen.DecoderRidgePenalty(functions=3), 1, np.eye(3)[:, 1:]),
         planted=planted_size),
]
