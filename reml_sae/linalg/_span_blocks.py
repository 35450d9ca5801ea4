"""Blocks of an arrowhead with a Kronecker border and low-rank coupling (DESIGN A3).

    H = [ D + U K U^T         s phi_i^T (x) j_i Q^T              ]
        [ .                   G (x) I_p + sum_c C_c C_c^T + E    ]

D has a block for each row and, where a penalty couples rows along a graph, a block for each edge;
U K U^T is of a penalty that couples all rows.
E is a dense part of the border, for penalties on decoders that are not the same for every output.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reml_sae.errors import InputError
from reml_sae.typing import Array, Index, Mask


@dataclass(frozen=True)
class SpanBlocks:
    """The blocks of a span arrowhead, as its factors read them.

    Attributes
    ----------
    rows : (N, q, q) row blocks D_i
    features : (N, M) scaled basis phi_i
    jacobians : (N, q, r) row Jacobians j_i in span coordinates
    span : (p, r) orthonormal columns Q
    gram : (M, M) G
    border_columns : (c, M, r) extra rank-one terms of the border, in the span
    scale : float, s
    heads, tails : (e,) rows that an edge couples, head != tail; a pair may occur more than once
    edges : (e, q, q) block of D in row ``head`` and column ``tail``; its transpose is implied
    dense_border : (M p, M p) E; the span must then be the identity. Size 0 where there is none
    columns : (c, N, q) U, which may be without columns
    core : (c, c) K
    carried : (N, q) bool, optional
        The parameters that a row has; the others have a unit block and no coupling. All by default.
    met : (N, M) bool, optional
        The rows of the border whose features a row can have; the others are zero whatever its
        parameters are. All by default.
    """

    rows: Array
    features: Array
    jacobians: Array
    span: Array
    gram: Array
    border_columns: Array
    scale: float
    heads: Index = field(default_factory=lambda: np.zeros(0, np.intp))
    tails: Index = field(default_factory=lambda: np.zeros(0, np.intp))
    edges: Array = field(default_factory=lambda: np.zeros((0, 0, 0)))
    dense_border: Array = field(default_factory=lambda: np.zeros((0, 0)))
    columns: Array = field(default_factory=lambda: np.zeros((0, 0, 0)))
    core: Array = field(default_factory=lambda: np.zeros((0, 0)))
    carried: Mask | None = None
    met: Mask | None = None

    def __post_init__(self) -> None:
        (n, q, _), m, (p, r) = self.rows.shape, self.features.shape[1], self.span.shape
        e, c = len(self.edges), len(self.columns)
        expected = {"rows": (n, q, q), "features": (n, m), "jacobians": (n, q, r), "gram": (m, m),
                    "border_columns": (len(self.border_columns), m, r), "heads": (e,),
                    "tails": (e,), "edges": (e, q, q) if e else self.edges.shape,
                    "columns": (c, n, q) if c else self.columns.shape, "core": (c, c)}
        if self.carried is not None:
            expected["carried"] = (n, q)
        if self.met is not None:
            expected["met"] = (n, m)
        if self.dense_border.size:
            expected["dense_border"] = (m * p, m * p)
            if r != p or not np.array_equal(self.span, np.eye(p)):
                raise InputError("span must be the identity where the border has a dense part")
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name} must have shape {shape} to match rows (N, q, q), "
                                 f"features (N, M) and span (p, r), got "
                                 f"{getattr(self, name).shape}")
        if r > p:
            raise InputError(f"span must have orthonormal columns, got {r} columns of length {p}")

    @property
    def border_shape(self) -> tuple[int, int]:
        """(M, p), the shape of a border vector."""
        return self.features.shape[1], self.span.shape[0]
