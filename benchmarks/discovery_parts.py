"""What the batteries of `discovery.py` plant, and how each plant is fitted.

A `Case` gives data for a seed and the arguments of `SAEManifold` that its truth calls for; an
`AutoCase` gives data and what ``topology="auto"`` should call them. Circles have radius 1 and the
other shapes that size, so the noise is relative to it; `reml_sae.datasets` has their coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from reml_sae.datasets import Planted, gaussian_control, planted_manifolds
from reml_sae.manifolds import Euclidean, Interval, Manifold

NOISE = (0.05, 0.1, 0.2)
OWN: dict[str, str | Manifold] = {
    "circle": "circle",
    "ellipse": "circle",
    "interval": Interval(8),
    "linear": "linear",
    "plane": "plane",
    "curved_sheet": Euclidean(2, 2),
    "torus": "torus",
    "donut": "torus",
    "cylinder": "cylinder",
    "sphere": "sphere",
    "mobius": "mobius",
    "projective_plane": "projective_plane",
}
"""The manifold that holds each planted shape."""


@dataclass(frozen=True)
class Case:
    """One problem: ``plant(random_state=seed)`` and the arguments of the fit."""

    label: str
    plant: Callable[..., Planted]
    options: dict[str, Any]


@dataclass(frozen=True)
class AutoCase:
    """One problem of ``topology="auto"``: data of a seed, and the labels that are right."""

    label: str
    rows: Callable[..., np.ndarray]
    right: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def called(manifold: Manifold) -> str:
    """Name of a topology, with dimension and degree where it has these."""
    if isinstance(manifold, Euclidean):
        return f"euclidean({manifold.dim}, {manifold.degree})"
    return manifold.name


def planting(n: int, p: int, topologies: list[str], **options: Any) -> Callable[..., Planted]:
    return partial(planted_manifolds, n, p, topologies, **options)


def circles(label: str, n: int, p: int, k: int, fit: dict[str, Any], **plant: Any) -> Case:
    return Case(label, planting(n, p, ["circle"] * k, **plant), {"n_atoms": k, **fit})


def mixed(label: str, n: int, p: int, topologies: list[str], **plant: Any) -> Case:
    return Case(label, planting(n, p, topologies, **plant),
                {"n_atoms": len(topologies), "topology": topologies})


def rows_of(shape: str) -> int:
    """An arc of a circle needs more rows to be told from a circle in a general position."""
    return 1000 if shape == "interval" else 400


def auto_rows(shape: str, *, random_state: int) -> np.ndarray:
    return planting(rows_of(shape), 8, [shape], noise_sd=0.1)(random_state=random_state).Z


def auto_cases() -> list[AutoCase]:
    flat = tuple(f"euclidean({d}, 1)" for d in range(1, 9))
    own = {shape: called(atom) if isinstance(atom, Manifold) else atom
           for shape, atom in OWN.items()}
    own |= {"linear": "euclidean(1, 1)", "plane": "euclidean(2, 1)"}
    return [AutoCase(shape, partial(auto_rows, shape), (right,)) for shape, right in own.items()
            ] + [AutoCase(f"Gaussian, rank {rank}", partial(gaussian_control, 400, 8, rank=rank,
                                                            noise_sd=0.1), flat)
                 for rank in (1, 2, 3)]


TOPK = {"assignment": "topk"}
UP_TO_THREE = {"assignment": "ordered_beta_bernoulli", "n_active": 3}
GATES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "topk": TOPK,
    "beta-Bernoulli": {"assignment": "ordered_beta_bernoulli", "n_active": 2},
    "threshold gate": {"assignment": "threshold_gate"},
}

BATTERIES: dict[str, list[Case]] = {
    "topology": [
        Case(f"{shape}, noise {sd:g}", planting(rows_of(shape), 8, [shape], noise_sd=sd),
             {"n_atoms": 1, "topology": atom})
        for shape, atom in OWN.items() for sd in NOISE
    ],
    "atoms": [
        circles(f"{k} circle{'s' * (k > 1)}, {name}", 200 * max(k, 2), 16, k, {"assignment": name})
        for k in (1, 2, 4, 8) for name in ("softmax", "topk")
    ],
    "imbalance": [
        circles(f"4 circles, imbalance {ratio}", 800, 16, 4, {}, imbalance=ratio)
        for ratio in (1, 4, 16)
    ],
    "superposition": [
        case for k in (4, 8, 16) for case in (
            *(circles(f"{s} of {k} circles, topk", 100 * k, 2 * k, k, {**TOPK, "n_active": s},
                      n_active=s) for s in (1, 2, 3)),
            circles(f"1 to 3 of {k} circles, beta-Bernoulli", 100 * k, 2 * k, k, UP_TO_THREE,
                    n_active_range=(1, 3)),
        )
    ],
    "overcomplete": [
        circles(f"{k} circles in R^{p}, topk", 100 * k, p, k, TOPK) for k, p in ((12, 8), (32, 16))
    ],
    "mixture": [
        mixed("2 spheres, 2 circles", 800, 16, ["sphere", "sphere", "circle", "circle"]),
        # the flats have rows near their centres, which without offsets are of no atom
        mixed("circle, line, plane, offsets", 600, 12, ["circle", "linear", "plane"], offset=1.0),
        mixed("torus, circle", 800, 12, ["torus", "circle"]),
    ],
    "gates": [
        circles(f"one of 2 circles, {name}", 400, 8, 2, fit) for name, fit in GATES.items()
    ] + [
        circles(f"1 or 2 of 2 circles, {name}", 400, 8, 2, GATES[name], n_active_range=(1, 2),
                amplitude_sd=0.2)
        for name in ("beta-Bernoulli", "threshold gate")
    ],
}
