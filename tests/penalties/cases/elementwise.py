"""Sparsity, concave penalties, activation and nested prefixes."""

import numpy as np

from reml_sae.penalties.activation import SmoothThresholdPenalty, TopKActivationPenalty
from reml_sae.penalties.concave import ScadMcpPenalty
from reml_sae.penalties.nested_prefix import NestedPrefixPenalty
from reml_sae.penalties.sparsity import SparsityPenalty
from tests.penalties.cases._case import Case, Small

RNG = np.random.default_rng(17)


def smooth(x, eps):
    return (x * x + eps * eps) ** 0.5


def smooth_l1(eps):
    def reference(target, strengths):
        return sum(strengths[0] * smooth(x, eps) for x in target.ravel())
    return reference


def log_penalty(eps):
    def reference(target, strengths):
        return sum(strengths[0] * np.log(1 + x * x / eps**2) for x in target.ravel())
    return reference


def hoyer(target, strengths):
    flat = target.ravel()
    one = sum(abs(x) for x in flat)
    two = sum(x * x for x in flat) ** 0.5
    return strengths[0] * (one / two - 1) / (len(flat) ** 0.5 - 1)


def concave(variant, w, gamma, eps):
    def reference(target, strengths):
        total = 0.0
        for t in target.ravel():
            r = smooth(t, eps)
            if variant == "mcp":
                total += (w * r - (r * r - eps * eps) / (2 * gamma) if r <= gamma * w
                          else gamma * w * w / 2 + eps * eps / (2 * gamma))
            elif r <= w:
                total += w * r
            elif r <= gamma * w:
                total += (2 * gamma * w * r - r * r - w * w) / (2 * (gamma - 1))
            else:
                total += (gamma + 1) * w * w / 2
        return total
    return reference


def topk(k, w):
    def reference(target, strengths):
        total = 0.0
        for row in target:
            squares = sorted((t * t for t in row), reverse=True)
            total += 0.5 * w * sum(squares[:k])
        return total
    return reference


def threshold(thetas, w, eps):
    def reference(target, strengths):
        total = 0.0
        for row in target:
            for t, theta in zip(row, thetas, strict=True):
                total += w * theta / (1 + np.exp(-(t - theta) / eps))
        return total
    return reference


def nested(prefixes, eps, axes_first):
    def reference(target, strengths):
        total = 0.0
        for row in target.T if axes_first else target:
            for m, strength in zip(prefixes, strengths, strict=True):
                total += sum(strength * smooth(row[i], eps) for i in range(m))
        return total
    return reference


def draw(rng, n, log_density, scale):
    """n draws of a symmetric density on the line, by inversion on a grid of |x|."""
    x = scale * np.sinh(np.linspace(0.0, 8.0, 400_001))
    density = np.exp(log_density(x) - log_density(0.0))
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(x)
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(rng.random(n), cumulative / cumulative[-1], x) * rng.choice([-1, 1], size=n)


def planted_smooth_l1(rng):
    rho, eps = np.array([0.6]), 0.5
    x = draw(rng, 20_000, lambda x: -np.exp(0.6) * np.hypot(x, eps), 0.02)
    return SparsityPenalty(eps=eps, latent_dim=2), x.reshape(-1, 2), rho


def planted_smooth_l1_decoder(rng):
    rho, eps = np.array([-0.4]), 0.3
    x = draw(rng, 20_000, lambda x: -2.0 * np.exp(-0.4) * np.hypot(x, eps), 0.02)
    return SparsityPenalty(eps=eps, weight=2.0, target="decoder"), x.reshape(5, -1), rho


def planted_log(rng):
    # (1 + x^2 / eps^2)^(-w) is Student's t of 2 w - 1 degrees of freedom, scaled
    rho, eps = np.array([0.5]), 0.7
    freedom = 2 * np.exp(0.5) - 1
    x = eps * rng.standard_t(freedom, size=(30_000, 1)) / np.sqrt(freedom)
    return SparsityPenalty(variant="log", eps=eps), x, rho


def planted_nested(axes_first):
    def planted(rng):
        rho, eps = np.array([0.5, 0.9]), 0.4
        strengths = np.exp(rho)
        x = np.stack([draw(rng, 20_000, lambda x, c=c: -c * np.hypot(x, eps), 0.02)
                      for c in (strengths.sum(), strengths[1], strengths[1])])
        where = "decoder" if axes_first else "coordinates"
        return (NestedPrefixPenalty(prefixes=(1, 3), eps=eps, target=where),
                x if axes_first else x.T, rho)
    return planted


def rows(penalty, d):
    return lambda n: (penalty, RNG.normal(size=(n, d)))


def extremes(d):
    return (np.zeros((3, d)), 1e6 * np.ones((2, d)), 1e-9 * np.ones((2, d)),
            np.concatenate([np.eye(d), -1e6 * np.eye(d)]), np.full((2, d), -0.5))


MIXED = np.array([[0.02, -0.5], [1.3, 4.0], [-2.5, 7.0], [0.3, -9.0]])
THETAS = (0.4, 1.5)
CASES = [
    Case(SparsityPenalty(eps=0.2, latent_dim=3, weight=1.5), RNG.normal(size=(5, 3)),
         smooth_l1(0.2), rows(SparsityPenalty(latent_dim=2), 2), extremes=extremes(3),
         small=Small(SparsityPenalty(eps=0.2, latent_dim=2, weight=2.0), 1, np.eye(2), 0.2,
                     rho=np.array([0.4])),
         planted=planted_smooth_l1, planted_tolerance=0.03, variant="smooth_l1"),
    Case(SparsityPenalty(eps=0.1, target="decoder"), RNG.normal(size=(4, 3)), smooth_l1(0.1),
         rows(SparsityPenalty(target="decoder"), 1), extremes=extremes(3),
         small=Small(SparsityPenalty(eps=0.1, target="decoder", weight=3.0), 1, np.eye(1), 0.2),
         planted=planted_smooth_l1_decoder, planted_tolerance=0.03, variant="smooth_l1-decoder"),
    Case(SparsityPenalty(variant="log", eps=0.3, latent_dim=2), RNG.normal(size=(6, 2)),
         log_penalty(0.3), rows(SparsityPenalty(variant="log", latent_dim=2), 2),
         extremes=extremes(2),
         small=Small(SparsityPenalty(variant="log", eps=0.3, weight=4.0), 1, np.eye(1), 0.3,
                     rho=np.array([0.1])),
         planted=planted_log, planted_tolerance=0.04, variant="log"),
    Case(SparsityPenalty(variant="log", eps=0.3, target="decoder", weight=0.8),
         RNG.normal(size=(3, 2)), log_penalty(0.3),
         rows(SparsityPenalty(variant="log", target="decoder"), 1), extremes=extremes(2),
         rho=np.array([1.2]), variant="log-decoder"),
    Case(SparsityPenalty(variant="hoyer", latent_dim=2, weight=2.0), RNG.normal(size=(4, 2)),
         hoyer, rows(SparsityPenalty(variant="hoyer", latent_dim=2), 2), extremes=extremes(2),
         variant="hoyer"),
    Case(SparsityPenalty(variant="hoyer", target="decoder"), RNG.normal(size=(3, 3)), hoyer,
         rows(SparsityPenalty(variant="hoyer", target="decoder"), 1), extremes=extremes(3),
         variant="hoyer-decoder"),
    *[Case(ScadMcpPenalty(variant=variant, gamma=gamma, eps=0.2, weight=1.1, latent_dim=2), MIXED,
           concave(variant, 1.1, gamma, 0.2),
           rows(ScadMcpPenalty(variant=variant, latent_dim=2), 2), extremes=extremes(2),
           variant=f"{variant}-{gamma}")
      for variant, gamma in (("mcp", 2.0), ("scad", 3.7), ("mcp", 1.01), ("scad", 2.01))],
    Case(TopKActivationPenalty(latent_dim=4, k=2, weight=0.7), RNG.normal(size=(5, 4)),
         topk(2, 0.7), rows(TopKActivationPenalty(latent_dim=3, k=1), 3), extremes=extremes(4)),
    Case(SmoothThresholdPenalty(thresholds=THETAS, eps=0.3, weight=1.2),
         RNG.normal(size=(5, 2)) + np.array(THETAS), threshold(THETAS, 1.2, 0.3),
         rows(SmoothThresholdPenalty(thresholds=THETAS), 2),
         extremes=(*extremes(2), np.tile(THETAS, (3, 1)))),
    Case(NestedPrefixPenalty(prefixes=(1, 3, 4), eps=0.2), RNG.normal(size=(5, 4)),
         nested((1, 3, 4), 0.2, False), rows(NestedPrefixPenalty(prefixes=(1, 2)), 2),
         extremes=extremes(4), rho=np.array([0.3, -0.5, 0.8]),
         small=Small(NestedPrefixPenalty(prefixes=(1, 2), eps=0.2), 1, np.eye(2), 0.3,
                     rho=np.array([0.3, 0.9])),
         planted=planted_nested(False), planted_tolerance=0.08),
    Case(NestedPrefixPenalty(prefixes=(2, 3), eps=0.1, target="decoder", weight=2.0),
         RNG.normal(size=(3, 4)), nested((2, 3), 0.1, True),
         lambda n: (NestedPrefixPenalty(prefixes=(1, 2), target="decoder"),
                    RNG.normal(size=(2, n))), extremes=(np.zeros((3, 2)), 1e6 * np.ones((3, 2))),
         planted=planted_nested(True), planted_tolerance=0.08, variant="decoder"),
]
