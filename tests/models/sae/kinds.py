"""A small SAE-manifold for every kind of penalty that the engine carries, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reml_sae import penalties as pen
from reml_sae.manifolds import Circle, Euclidean
from reml_sae.models import bind_penalty
from tests.models.sae.systems import build

N, P = 24, 5
RNG = np.random.default_rng(8)
PLANE, LINE, RING = Euclidean(2, 1), Euclidean(1, 2), Circle(2)
_root = RNG.normal(size=(N, 2, 2))
PRECISIONS = np.eye(2) + _root @ _root.transpose(0, 2, 1)
AUX = RNG.normal(size=(N, 2))
GRAPH = [[i, i + 1] for i in range(0, N - 1, 2)] + [[0, i] for i in range(2, N, 2)]
MAPS = np.eye(2) + 0.3 * RNG.normal(size=(2, N, 2, 2))
RING_GRAPH = [[i, (i + 1) % N] for i in range(N)]


@dataclass(frozen=True, eq=False)
class Kind:
    """A configuration with the atoms that it is fitted on."""

    config: dict
    atoms: tuple = (PLANE,)
    variant: str = ""
    options: dict = field(default_factory=dict)
    beside: tuple = ()
    weights: tuple = (0.3, 3.0, 30.0)

    @property
    def name(self) -> str:
        return self.config["kind"] + (f"-{self.variant}" if self.variant else "")

    def penalty(self, **changes) -> pen.Penalty:
        return pen.from_config({**self.config, **changes})

    def model(self, **changes):
        penalties = [self.penalty(**changes), *map(pen.from_config, self.beside)]
        terms = [term for penalty in penalties for term in bind_penalty(penalty, self.atoms, P)]
        return build(list(self.atoms), n=N, p=P, extra=terms,
                     **{"dispersion": 0.5, "stretch": 2.0, **self.options})


CARRIED = [
    Kind({"kind": "softmax_assignment_sparsity", "k_atoms": 2}, (RING, Circle(1)),
         options={"own": False, "dispersion": 0.3, "stretch": 1.0}, weights=(3.0, 10.0, 30.0)),
    Kind({"kind": "ard", "latent_dim": 2}),
    Kind({"kind": "sparsity", "variant": "smooth_l1", "eps": 0.3, "latent_dim": 2},
         variant="smooth_l1"),
    Kind({"kind": "sparsity", "variant": "log", "eps": 0.5, "latent_dim": 2, "weight": 3.0},
         variant="log"),
    Kind({"kind": "sparsity", "variant": "smooth_l1", "eps": 0.3, "target": "decoder"}, (RING,),
         variant="decoder", options={"own": False}),
    Kind({"kind": "sparsity", "variant": "log", "eps": 0.5, "weight": 2.0, "target": "decoder",
          "atom": 0}, (PLANE, LINE), variant="log-decoder"),
    Kind({"kind": "scad_mcp", "variant": "mcp", "gamma": 3.0, "eps": 0.3, "latent_dim": 2},
         variant="mcp"),
    Kind({"kind": "scad_mcp", "variant": "scad", "gamma": 3.7, "eps": 0.3, "latent_dim": 2,
          "weight": 0.5}, variant="scad"),
    Kind({"kind": "topk_activation", "k": 2, "latent_dim": 2}, variant="all-axes"),
    Kind({"kind": "smooth_threshold", "thresholds": [0.5, 0.8], "eps": 0.4}),
    Kind({"kind": "nested_prefix", "prefixes": [1, 2], "eps": 0.3}),
    Kind({"kind": "nested_prefix", "prefixes": [1, 3, 5], "eps": 0.3, "target": "decoder"},
         (RING,), variant="decoder", options={"own": False}),
    Kind({"kind": "total_variation", "latent_dim": 2, "eps": 0.4}, variant="chain"),
    Kind({"kind": "total_variation", "latent_dim": 1, "eps": 0.4, "difference": "graph_edges",
          "edges": GRAPH, "n_nodes": N}, (LINE,), variant="tree"),
    Kind({"kind": "total_variation", "latent_dim": 1, "eps": 0.4, "weight": 2.0,
          "difference": "graph_edges", "edges": RING_GRAPH}, (LINE, RING), variant="cycle",
         options={"dispersion": 0.05}),
    Kind({"kind": "monotonicity", "latent_dim": 2, "direction": 1, "eps": 0.5}),
    Kind({"kind": "harmonic_roughness", "period": 5}, (RING,), options={"own": False}),
    Kind({"kind": "decoder_ridge", "functions": 5}, (RING,), options={"own": False}),
    Kind({"kind": "quadratic", "S": np.diag([0.0, 1.0, 2.0]).tolist()}, (PLANE,)),
    Kind({"kind": "nuclear_norm", "latent_dim": 2, "eps": 0.3}),
    Kind({"kind": "nuclear_norm", "latent_dim": 5, "eps": 0.3, "target": "decoder"}, (RING,),
         variant="decoder", options={"own": False}),
    Kind({"kind": "block_sparsity", "groups": [[0], [1]], "eps": 0.3}),
    Kind({"kind": "mechanism_sparsity", "feature_groups": [[0, 1], [2, 4], [3]], "eps": 0.3},
         (RING,), options={"own": False}),
    Kind({"kind": "orthogonality", "latent_dim": 2, "weight": 5.0}),
    Kind({"kind": "block_orthogonality", "groups": [[0], [1]], "weight": 0.1},
         beside=({"kind": "row_precision_prior", "precisions": PRECISIONS.tolist()},)),
    Kind({"kind": "decoder_incoherence", "block_sizes": [5, 3], "weight": 3.0}, (RING, Circle(1)),
         options={"dispersion": 0.1}),
    Kind({"kind": "row_precision_prior", "precisions": PRECISIONS.tolist()}),
    Kind({"kind": "parametric_row_precision_prior", "latent_dim": 2, "aux": AUX.tolist()},
         options={"dispersion": 0.3}),
    Kind({"kind": "ivae_ridge_mean_gauge", "latent_dim": 2, "aux": AUX.tolist(), "ridge": 0.5}),
    Kind({"kind": "sheaf_consistency", "edges": RING_GRAPH, "restrictions_u": MAPS[0].tolist(),
          "restrictions_v": MAPS[1].tolist()}),
    Kind({"kind": "log_strength_prior", "names": ["log_dispersion", "quadratic.*"], "mean": -1.0,
          "sd": 0.5}, (LINE,)),
]

REFUSED: list[tuple[dict, tuple]] = [
    ({"kind": "ordered_beta_bernoulli", "k_atoms": 1}, (LINE,)),
    ({"kind": "isometry", "n_outputs": P, "latent_dim": 1}, (LINE,)),
    ({"kind": "topk_activation", "k": 1, "latent_dim": 2}, (PLANE,)),
    ({"kind": "sparsity", "variant": "hoyer"}, (LINE,)),
    ({"kind": "nuclear_norm", "latent_dim": 2, "max_rank": 1}, (PLANE,)),
]
