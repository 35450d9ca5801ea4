"""What a penalty that others wrote answers, asked before a fit."""

from __future__ import annotations

import numpy as np

from reml_sae.answers import Asked
from reml_sae.penalties._base import Penalty
from reml_sae.penalties._curvature import RowInverse
from reml_sae.penalties._matrix import MatrixPenalty, RowPenalty
from reml_sae.penalties.quadratic import DecoderQuadratic
from reml_sae.typing import Array, Curvature

ROWS = 5
LENGTHS = (0.1, 1.0, 10.0)
"""Of the targets: near zero, and farther out than coordinates and decoders go."""


def check_answers(penalty: Penalty) -> None:
    """Ask a penalty for all that a fit asks it, at a few targets.

    Raises
    ------
    InputError
        Naming the kind and the method, where it raises, has another shape or is not finite.
    """
    asked = Asked(penalty, penalty.KIND_TAG,
                  "reml_sae.penalties.check_penalty compares it with what is asked for")
    count = penalty.rho_count()
    rho = asked.array("initial_rho", (count,))
    asked.array("rho_bounds", (count, 2))
    if isinstance(penalty, DecoderQuadratic):
        size = penalty.basis_size
        asked.array("matrix", (size, size))
        n_rows = ROWS
    elif isinstance(penalty, MatrixPenalty):
        n_rows = penalty.n_rows_expected() or ROWS
        rng = np.random.default_rng(0)
        for length in LENGTHS:
            _ask(asked, penalty, length * rng.normal(size=(n_rows, penalty.width())), rho)
    else:
        return
    partition = asked.answer("log_partition", rho, n_rows)
    if partition is None and not penalty.is_normalised:
        return
    value, slope = partition if isinstance(partition, tuple) and len(partition) == 2 else (
        partition, np.zeros(count))
    asked.finite("log_partition", (), value)
    asked.finite("log_partition", (count,), slope)


def _ask(asked: Asked, penalty: MatrixPenalty, view: Array, rho: Array) -> None:
    target, (n, d) = penalty.flat(view), view.shape
    if isinstance(penalty, RowPenalty):
        asked.array("row_values", (n,), target, rho)
        blocks = asked.array("row_blocks", (n, d, d), target, rho)
        asked.array("row_majorizer", (n, d, d), target, rho)
        for method in ("row_blocks_vjp", "row_majorizer_vjp"):
            asked.array(method, (n, d), target, rho, np.ones_like(blocks))
    asked.array("value", (), target, rho)
    asked.array("row_gradient", (n, d), target, rho)
    asked.array("grad_rho", (penalty.rho_count(),), target, rho)
    kinds: tuple[Curvature, ...] = ("exact", "majorizer")
    for which in kinds:
        found = asked.answer("curvature", target, rho, which)
        asked.finite("curvature", (n, d, d), getattr(found, "blocks", found))
        inverse = RowInverse.of_dense(np.eye(n * d), found)
        asked.array("curvature_vjp", (n, d), target, rho, inverse, which)
