"""Cases of the functions of the Gram matrix, and of mechanism sparsity."""

import numpy as np

from reml_sae.penalties.decoder_incoherence import DecoderIncoherencePenalty
from reml_sae.penalties.group_sparsity import BlockSparsityPenalty, MechanismSparsityPenalty
from reml_sae.penalties.nuclear_norm import NuclearNormPenalty
from reml_sae.penalties.orthogonality import BlockOrthogonalityPenalty, OrthogonalityPenalty
from tests.penalties.cases._case import Case, Small

RNG = np.random.default_rng(41)


# --- references -------------------------------------------------------------------------------


def nuclear(eps, rank):
    def reference(target, strengths):
        total = 0.0
        for sigma in sorted(np.linalg.svd(target, compute_uv=False), reverse=True)[:rank]:
            total += (sigma**2 + eps**2) ** 0.5 - eps
        return strengths[0] * total
    return reference


def block_sparsity(groups, eps):
    def reference(target, strengths):
        total = 0.0
        for group in groups:
            square = sum(row[a] ** 2 for row in target for a in group)
            total += len(group) ** 0.5 * (square + eps**2) ** 0.5
        return strengths[0] * total
    return reference


def mechanism_sparsity(groups, eps):
    def reference(target, strengths):
        return sum(block_sparsity(groups, eps)([row], strengths) for row in target)
    return reference


def inner(target, a, b):
    return sum(row[a] * row[b] for row in target)


def orthogonality(weight):
    def reference(target, strengths):
        total = 0.0
        for a in range(len(target[0])):
            for b in range(len(target[0])):
                total += (inner(target, a, b) / len(target) - (a == b)) ** 2
        return 0.5 * weight * total
    return reference


def block_orthogonality(groups, weight):
    def reference(target, strengths):
        total = 0.0
        for g, group in enumerate(groups):
            for other in groups[g + 1:]:
                total += sum(inner(target, a, b) ** 2 for a in group for b in other)
        return 0.5 * weight * total
    return reference


def incoherence(sizes, pairs, coactivation):
    def reference(target, strengths):
        blocks, start = [], 0
        for size in sizes:
            blocks.append(target[start:start + size])
            start += size
        total = 0.0
        for (j, k), w in zip(pairs, coactivation, strict=True):
            cross = sum(sum(x * y for x, y in zip(u, v, strict=True)) ** 2
                        for u in blocks[j] for v in blocks[k])
            norms = [sum(x * x for u in blocks[i] for x in u) for i in (j, k)]
            total += 0.5 * w * cross / (norms[0] * norms[1])
        return total
    return reference


# --- exact draws ------------------------------------------------------------------------------


def radii(rng, m, c, eps, count):
    """|x| for x in m dimensions with density exp(-c sqrt(|x|^2 + eps^2)), by inversion."""
    centre, width = m / c + eps * np.sqrt(m), 40.0 * (np.sqrt(m) / c + eps)
    r = np.linspace(max(centre - width, 0.0), centre + width, 400_001)[1:]
    log_density = (m - 1) * np.log(r) - c * np.sqrt(r**2 + eps**2)
    cumulative = np.cumsum(np.exp(log_density - log_density.max()))
    return np.interp(rng.random(count), cumulative / cumulative[-1], r)


def balls(rng, m, c, eps, count):
    """The vectors themselves, (count, m)."""
    direction = rng.normal(size=(count, m))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return radii(rng, m, c, eps, count)[:, None] * direction


def planted_blocks(rng):
    rho, n, groups, eps = np.array([0.4]), 4000, ((0, 2), (1,)), 0.5
    target = np.zeros((n, 3))
    for group in groups:
        c = np.exp(0.4) * np.sqrt(len(group))
        target[:, list(group)] = balls(rng, n * len(group), c, eps, 1).reshape(n, -1)
    return BlockSparsityPenalty(groups=groups, eps=eps), target, rho


def planted_mechanisms(rng):
    rho, n, groups, eps = np.array([-0.6]), 4000, ((0, 2), (1,)), 0.5
    target = np.zeros((n, 3))
    for group in groups:
        c = np.exp(-0.6) * np.sqrt(len(group))
        target[:, list(group)] = balls(rng, len(group), c, eps, n)
    return MechanismSparsityPenalty(feature_groups=groups, eps=eps), target, rho


def planted_nuclear(rng):
    """Two singular values from their joint density on a grid, between Haar rotations."""
    rho, n, eps = np.array([0.5]), 5000, 0.5
    w = np.exp(0.5)
    s = n / w + np.linspace(-12.0, 12.0, 1501) * np.sqrt(n) / w
    one = (n - 2) * np.log(s) - w * np.sqrt(s**2 + eps**2)
    with np.errstate(divide="ignore"):
        log_density = one[:, None] + one + np.log(np.abs(s[:, None] ** 2 - s**2))
    cumulative = np.cumsum(np.exp(log_density - log_density.max()).ravel())
    draw = np.searchsorted(cumulative, rng.random() * cumulative[-1])
    sigma = s[list(np.unravel_index(draw, (s.size, s.size)))]
    left, _ = np.linalg.qr(rng.normal(size=(n, 2)))
    right, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    return NuclearNormPenalty(latent_dim=2, eps=eps), (left * sigma) @ right.T, rho


# --- cases ------------------------------------------------------------------------------------

TIED = np.concatenate([np.eye(3), -np.eye(3)])
EXTREME_COORDINATES = (
    np.zeros((4, 3)), TIED, 1e-9 * TIED, 1e6 * TIED, 1e6 * np.ones((4, 3)), 1e-9 * np.ones((4, 3)),
    np.eye(3)[:2], 1e6 * np.diag([1.0, 1.0, 0.0]), np.diag([1e6, 1.0, 1e-9]), np.diag([1.0, 0, 0]))
EXTREME_DECODERS = tuple(target.T for target in EXTREME_COORDINATES)
GROUPS = ((0, 2), (1,))
PAIRS, COACTIVATION = ((0, 9), (4, 2)), (0.3, 0.8)
SIZES = (2, 1, 2)
ALL = ((0, 1), (0, 2), (1, 2))


def coordinates(n):
    return RNG.normal(size=(n, 3))


CASES = [
    Case(NuclearNormPenalty(latent_dim=3, eps=0.3, weight=1.7), coordinates(6), nuclear(0.3, 3),
         lambda n: (NuclearNormPenalty(latent_dim=3), coordinates(n)),
         extremes=EXTREME_COORDINATES,
         small=Small(NuclearNormPenalty(latent_dim=1, eps=0.6), 1, np.eye(1),
                     rho=np.array([0.4])),
         planted=planted_nuclear, planted_tolerance=0.05),
    Case(NuclearNormPenalty(latent_dim=3, eps=0.3, target="decoder"), RNG.normal(size=(3, 5)),
         nuclear(0.3, 3),
         lambda n: (NuclearNormPenalty(latent_dim=3, target="decoder"), coordinates(n).T),
         extremes=EXTREME_DECODERS, variant="decoder"),
    Case(NuclearNormPenalty(latent_dim=4, eps=0.2), RNG.normal(size=(2, 4)), nuclear(0.2, 4),
         lambda n: (NuclearNormPenalty(latent_dim=3), coordinates(n)), variant="wide"),
    Case(NuclearNormPenalty(latent_dim=4, eps=0.3, max_rank=2), RNG.normal(size=(6, 4)),
         nuclear(0.3, 2),
         lambda n: (NuclearNormPenalty(latent_dim=3, max_rank=2), coordinates(n)),
         extremes=tuple(np.pad(target, ((0, 0), (0, 1))) for target in EXTREME_COORDINATES),
         variant="capped"),
    Case(BlockSparsityPenalty(groups=GROUPS, eps=0.3), coordinates(5),
         block_sparsity(GROUPS, 0.3),
         lambda n: (BlockSparsityPenalty(groups=GROUPS), coordinates(n)),
         extremes=EXTREME_COORDINATES,
         small=Small(BlockSparsityPenalty(groups=[[0, 1]], eps=0.7), 1, np.eye(2)),
         planted=planted_blocks, planted_tolerance=0.05),
    Case(MechanismSparsityPenalty(feature_groups=GROUPS, eps=0.3), coordinates(4),
         mechanism_sparsity(GROUPS, 0.3),
         lambda n: (MechanismSparsityPenalty(feature_groups=GROUPS), coordinates(n)),
         extremes=EXTREME_COORDINATES,
         small=Small(MechanismSparsityPenalty(feature_groups=[[0, 1]], eps=0.7), 1, np.eye(2)),
         planted=planted_mechanisms, planted_tolerance=0.06),
    Case(OrthogonalityPenalty(latent_dim=3, weight=2.0), coordinates(5), orthogonality(2.0),
         lambda n: (OrthogonalityPenalty(latent_dim=3), coordinates(n)),
         extremes=EXTREME_COORDINATES),
    Case(BlockOrthogonalityPenalty(groups=GROUPS, weight=2.0), coordinates(5),
         block_orthogonality(GROUPS, 2.0),
         lambda n: (BlockOrthogonalityPenalty(groups=GROUPS), coordinates(n)),
         extremes=EXTREME_COORDINATES),
    Case(DecoderIncoherencePenalty(block_sizes=SIZES), RNG.normal(size=(5, 4)),
         incoherence(SIZES, ALL, (1.0, 1.0, 1.0)),
         lambda n: (DecoderIncoherencePenalty(block_sizes=SIZES), RNG.normal(size=(5, n))),
         extremes=(np.zeros((5, 3)), np.ones((5, 3)), 1e6 * np.ones((5, 3)),
                   1e-9 * np.ones((5, 3)), np.eye(5), np.eye(5)[:, :2],
                   np.diag([0.0, 0.0, 1.0, 1.0, 1.0]), np.outer([1e6, 1, 1e-9, 1, 0], [1.0, 2.0]))),
    Case(DecoderIncoherencePenalty(block_sizes=(2,) * 10, pairs=PAIRS, coactivation=COACTIVATION),
         RNG.normal(size=(20, 2)), incoherence((2,) * 10, PAIRS, COACTIVATION),
         lambda n: (DecoderIncoherencePenalty(block_sizes=SIZES, pairs=[[0, 2]]),
                    RNG.normal(size=(5, n))),
         extremes=(np.zeros((20, 2)), 1e6 * np.ones((20, 2))), variant="sparse"),
]
