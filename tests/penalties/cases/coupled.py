"""Cases of the kinds that couple rows, along a graph or all of them."""

from itertools import pairwise
from math import exp, lgamma, log, log1p, sqrt

import numpy as np

from reml_sae.penalties.isometry import IsometryPenalty
from reml_sae.penalties.ivae import IvaeRidgeMeanGauge
from reml_sae.penalties.monotonicity import MonotonicityPenalty
from reml_sae.penalties.ordered_beta_bernoulli import OrderedBetaBernoulliPenalty
from reml_sae.penalties.sheaf import SheafConsistencyPenalty
from reml_sae.penalties.total_variation import TotalVariationPenalty
from tests.penalties.cases._case import Case, Small

RNG = np.random.default_rng(17)
FOREST = [[0, 1], [3, 1], [1, 4], [2, 6]]  # row 5 is alone
CYCLE = [[0, 1], [1, 2], [2, 0], [3, 4]]
PAIRS = [[0, 1], [3, 2]]


def complement(vectors):
    """Orthonormal basis of the complement of the rows of ``vectors``."""
    vectors = np.atleast_2d(vectors)
    return np.linalg.svd(vectors)[2][len(vectors):].T


def spread(n, d):
    """Zeros, ties, and entries far apart."""
    return (np.zeros((n, d)), np.ones((n, d)), 1e6 * np.ones((n, d)), 1e6 * RNG.normal(size=(n, d)),
            1e-9 * RNG.normal(size=(n, d)))


# --- total variation and monotonicity ---------------------------------------------------------


def chain(n):
    return [[i, i + 1] for i in range(n - 1)]


def total_variation(edges, eps):
    def reference(target, strengths):
        total = 0.0
        for u, v in edges or chain(len(target)):
            for a in range(target.shape[1]):
                total += sqrt((target[v][a] - target[u][a]) ** 2 + eps**2) - eps
        return strengths[0] * total
    return reference


def planted_differences(rng, count, w, eps):
    """From exp(-w (s(x) - eps)), by inversion on a grid."""
    x = np.linspace(-60.0, 60.0, 600_001)
    cumulative = np.cumsum(np.exp(-w * (np.hypot(x, eps) - eps)))
    return np.interp(rng.random(count), cumulative / cumulative[-1], x)


def planted_chain(rng):
    rho = np.array([0.6])
    steps = planted_differences(rng, (9_999, 2), exp(0.6), 0.5)
    target = np.vstack([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return TotalVariationPenalty(latent_dim=2, eps=0.5), target, rho


def planted_tree(rng):
    rho, n = np.array([-0.5]), 10_000
    parents = [int(rng.integers(child)) for child in range(1, n)]
    steps = planted_differences(rng, (n, 1), 2.0 * exp(-0.5), 0.1)
    target = np.zeros((n, 1))
    for child, parent in enumerate(parents, start=1):
        target[child] = target[parent] + steps[child]
    edges = [[parent, child] for child, parent in enumerate(parents, start=1)]
    return TotalVariationPenalty(latent_dim=1, eps=0.1, difference="graph_edges", edges=edges,
                                 weight=2.0), target, rho


def graph(edges, **fields):
    return TotalVariationPenalty(difference="graph_edges", edges=edges, **fields)


def monotonicity(direction, eps, weight):
    def reference(target, strengths):
        total = 0.0
        for here, there in pairwise(target):
            for a in range(target.shape[1]):
                total += log1p(exp(-direction * (there[a] - here[a]) / eps))
        return weight * eps * total
    return reference


# --- sheaf and gauge --------------------------------------------------------------------------


def sheaf(edges, ru, rv):
    def reference(target, strengths):
        total = 0.0
        for e, (u, v) in enumerate(edges):
            for i in range(len(ru[e])):
                gap = 0.0
                for a in range(target.shape[1]):
                    gap += ru[e][i][a] * target[u][a] - rv[e][i][a] * target[v][a]
                total += 0.5 * gap * gap
        return strengths[0] * total
    return reference


def uniform_sheaf(edges, matrix, **fields):
    restrictions = np.tile(np.asarray(matrix, float), (len(edges), 1, 1))
    return SheafConsistencyPenalty(edges=edges, restrictions_u=restrictions,
                                   restrictions_v=restrictions, **fields)


def planted_sheaf(rng):
    """Chains of ten nodes: the disagreements are free and normal."""
    rho, length, chains = np.array([0.4]), 10, 300
    edges, ru, rv, rows = [], [], [], []
    for c in range(chains):
        rows.append(rng.normal(size=2))
        for i in range(length - 1):
            u = c * length + i
            matrices = rng.normal(size=(2, 2, 2)) + 2.0 * np.eye(2)
            noise = rng.normal(size=2) * exp(-0.2)
            rows.append(np.linalg.solve(matrices[1], matrices[0] @ rows[u] - noise))
            edges.append([u, u + 1])
            ru.append(matrices[0])
            rv.append(matrices[1])
    return (SheafConsistencyPenalty(edges=edges, restrictions_u=ru, restrictions_v=rv),
            np.array(rows), rho)


def ivae(aux, ridge):
    def reference(target, strengths):
        n = len(target)
        gram = np.array([[sum(aux[i][j] * aux[i][k] for i in range(n)) + ridge * (j == k)
                          for k in range(aux.shape[1])] for j in range(aux.shape[1])])
        inverse = np.linalg.inv(gram)
        total = 0.0
        for column in target.T:
            reach = [sum(aux[i][j] * column[i] for i in range(n)) for j in range(aux.shape[1])]
            total += sum(x * x for x in column)
            for j, x in enumerate(reach):
                for k, y in enumerate(reach):
                    total -= x * inverse[j][k] * y
        return 0.5 * strengths[0] * total
    return reference


def planted_ivae(rng):
    rho, n, ridge = np.array([-0.7]), 4000, 3.0
    aux = rng.normal(size=(n, 3))
    q, s, _ = np.linalg.svd(aux, full_matrices=False)
    noise = rng.normal(size=(n, 2)) * exp(0.35)
    stretch = np.sqrt((s**2 + ridge) / ridge)  # A^{-1/2} on the range of U
    target = noise + q @ ((stretch - 1.0)[:, None] * (q.T @ noise))
    return IvaeRidgeMeanGauge(latent_dim=2, aux=aux, ridge=ridge), target, rho


# --- gates ------------------------------------------------------------------------------------


def beta_bernoulli(tau):
    def reference(target, strengths):
        total, n = 0.0, len(target)
        for k in range(target.shape[1]):
            mu = (strengths[0] / (strengths[0] + 1.0)) ** (k + 1)
            a = mu / (1.0 - mu)
            m = sum(1.0 / (1.0 + exp(-x / tau)) for x in target[:, k])
            total += -log(a) - lgamma(m + a) - lgamma(n - m + 1.0) + lgamma(n + a + 1.0)
        return total
    return reference


def planted_gates(rng):
    n, k, alpha = 500, 200, 60.0
    mu = (alpha / (alpha + 1.0)) ** np.arange(1.0, k + 1.0)
    frequency = rng.random(k) ** ((1.0 - mu) / mu)  # Beta(a, 1)
    gates = rng.random((n, k)) < frequency
    return (OrderedBetaBernoulliPenalty(k_atoms=k), np.where(gates, 40.0, -40.0),
            np.array([log(alpha)]))


# --- isometry ---------------------------------------------------------------------------------


def isometry(p, d, metric, weight):
    def reference(target, strengths):
        grams = []
        for n, row in enumerate(target):
            W = np.eye(p) if metric is None else metric if metric.ndim == 2 else metric[n]
            g = np.zeros((d, d))
            for a in range(d):
                for b in range(d):
                    for i in range(p):
                        for j in range(p):
                            g[a, b] += row[i * d + a] * W[i, j] * row[j * d + b]
            grams.append(g)
        mean = sum(g[a, a] for g in grams for a in range(d)) / (len(grams) * d)
        return 0.5 * weight * sum((g[a, b] / mean - (a == b)) ** 2
                                  for g in grams for a in range(d) for b in range(d))
    return reference


def positive_definite(shape):
    root = RNG.normal(size=shape)
    return root @ np.swapaxes(root, -1, -2) + np.eye(shape[-1])


def frames(n, p, d):
    """Rows whose Jacobians are isometries."""
    return np.linalg.qr(RNG.normal(size=(n, p, d)))[0].reshape(n, p * d)


LONE = np.zeros((3, 8))
LONE[1, 0] = 1.0
RU, RV = RNG.normal(size=(2, 4, 2, 3))
TRIANGLE = [[0, 1], [1, 2], [0, 2]]
AUX = RNG.normal(size=(6, 3))
ONE_METRIC, METRICS = positive_definite((4, 4)), positive_definite((3, 4, 4))

CASES = [
    Case(TotalVariationPenalty(latent_dim=2, eps=0.4), RNG.normal(size=(5, 2)),
         total_variation(None, 0.4),
         lambda n: (TotalVariationPenalty(latent_dim=2), RNG.normal(size=(n, 2))),
         extremes=(*spread(4, 2), np.zeros((1, 2))),
         small=Small(TotalVariationPenalty(latent_dim=1, eps=0.5), 3, complement(np.ones(3)),
                     rho=np.array([0.3])),
         planted=planted_chain, planted_tolerance=0.04),
    Case(graph(FOREST, latent_dim=2, eps=0.2), RNG.normal(size=(7, 2)),
         total_variation(FOREST, 0.2),
         lambda n: (graph([[i // 2, i] for i in range(1, n)], latent_dim=1),
                    RNG.normal(size=(n, 1))),
         extremes=spread(7, 2),
         small=Small(graph(PAIRS, latent_dim=1, eps=0.5, n_nodes=5, weight=2.0), 5,
                     np.array([[1.0, -1, 0, 0, 0], [0, 0, 1, -1, 0]]).T / np.sqrt(2.0), 0.5),
         planted=planted_tree, planted_tolerance=0.05, variant="forest"),
    Case(graph(CYCLE, latent_dim=2, n_nodes=6, eps=0.2, weight=3.0), RNG.normal(size=(6, 2)),
         total_variation(CYCLE, 0.2),
         lambda n: (graph([*chain(n), [n - 1, 0]], latent_dim=1), RNG.normal(size=(n, 1))),
         extremes=spread(6, 2), variant="cycle"),
    Case(MonotonicityPenalty(latent_dim=2, eps=0.5, weight=2.0), RNG.normal(size=(5, 2)),
         monotonicity(1, 0.5, 2.0),
         lambda n: (MonotonicityPenalty(latent_dim=2), RNG.normal(size=(n, 2))),
         extremes=(*spread(4, 2), -1e6 * np.arange(8.0).reshape(4, 2))),
    Case(MonotonicityPenalty(latent_dim=1, eps=0.3, direction=-1), RNG.normal(size=(6, 1)),
         monotonicity(-1, 0.3, 1.0),
         lambda n: (MonotonicityPenalty(latent_dim=1, direction=-1), RNG.normal(size=(n, 1))),
         extremes=spread(4, 1), variant="falling"),
    Case(SheafConsistencyPenalty(edges=CYCLE, restrictions_u=RU, restrictions_v=RV, n_nodes=6),
         RNG.normal(size=(6, 3)), sheaf(CYCLE, RU, RV),
         lambda n: (SheafConsistencyPenalty(
             edges=chain(n)[::2], restrictions_u=RNG.normal(size=(n // 2, 2, 2)),
             restrictions_v=RNG.normal(size=(n // 2, 2, 2))), RNG.normal(size=(n, 2))),
         extremes=spread(6, 3),
         small=Small(SheafConsistencyPenalty(edges=[[0, 1]], restrictions_u=[[[1.0], [0.5]]],
                                             restrictions_v=[[[-0.5], [2.0]]]),
                     2, np.eye(2), rho=np.array([0.5])),
         planted=planted_sheaf, planted_tolerance=0.08),
    Case(uniform_sheaf(CYCLE, [[1.0, 0.5], [0.0, 2.0]], weight=0.5), RNG.normal(size=(5, 2)),
         sheaf(CYCLE, np.tile([[1.0, 0.5], [0.0, 2.0]], (4, 1, 1)),
               np.tile([[1.0, 0.5], [0.0, 2.0]], (4, 1, 1))),
         lambda n: (uniform_sheaf(chain(n), np.eye(2)), RNG.normal(size=(n, 2))),
         extremes=spread(5, 2),
         small=Small(uniform_sheaf(TRIANGLE, [[2.0]], n_nodes=4), 4,
                     complement([[1.0, 1, 1, 0], [0, 0, 0, 1]])),
         variant="uniform"),
    Case(IvaeRidgeMeanGauge(latent_dim=2, aux=AUX, ridge=0.5), RNG.normal(size=(6, 2)),
         ivae(AUX, 0.5),
         lambda n: (IvaeRidgeMeanGauge(latent_dim=2, aux=RNG.normal(size=(n, 2)), ridge=1.0),
                    RNG.normal(size=(n, 2))),
         extremes=spread(6, 2),
         small=Small(IvaeRidgeMeanGauge(latent_dim=1, aux=AUX[:2, :1], ridge=0.5), 2, np.eye(2),
                     1.5, rho=np.array([0.2])),
         planted=planted_ivae, planted_tolerance=0.07),
    Case(OrderedBetaBernoulliPenalty(k_atoms=3, temperature=0.7, weight=2.0),
         RNG.normal(size=(6, 3)), beta_bernoulli(0.7),
         lambda n: (OrderedBetaBernoulliPenalty(k_atoms=2), RNG.normal(size=(n, 2))),
         extremes=(*spread(4, 3), -1e6 * np.ones((4, 3)), 1e6 * np.eye(3),
                   np.full((5, 3), -900.0)),
         planted=planted_gates, planted_tolerance=0.2),
    Case(IsometryPenalty(n_outputs=4, latent_dim=2, weight=1.5), RNG.normal(size=(3, 8)),
         isometry(4, 2, None, 1.5),
         lambda n: (IsometryPenalty(n_outputs=3, latent_dim=2), RNG.normal(size=(n, 6))),
         extremes=(*spread(3, 8), frames(3, 4, 2), LONE, 1e6 * LONE)),
    Case(IsometryPenalty(n_outputs=4, latent_dim=2, metric=ONE_METRIC), RNG.normal(size=(3, 8)),
         isometry(4, 2, ONE_METRIC, 1.0),
         lambda n: (IsometryPenalty(n_outputs=2, latent_dim=1, metric=np.diag([1.0, 4.0])),
                    RNG.normal(size=(n, 2))),
         extremes=(*spread(3, 8), frames(3, 4, 2), LONE), variant="metric"),
    Case(IsometryPenalty(n_outputs=4, latent_dim=2, metric=METRICS), RNG.normal(size=(3, 8)),
         isometry(4, 2, METRICS, 1.0),
         lambda n: (IsometryPenalty(n_outputs=2, latent_dim=2,
                                    metric=np.tile(np.eye(2), (n, 1, 1))),
                    RNG.normal(size=(n, 4))),
         extremes=(*spread(3, 8), frames(3, 4, 2), LONE), variant="metrics"),
]
