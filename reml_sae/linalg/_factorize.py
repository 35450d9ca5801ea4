"""Which factor a span arrowhead gets (DESIGN A3): the one place that chooses.

    what couples or empties the rows          factor              cost of the rows
    edges between them                        SparseSpanFactor    one sparse Cholesky, Y = D^-1 C
    none, and no row carries everything       PackedFactor        blocks of the largest row's size;
                                                                  products by the rows' supports
    none                                      SpanArrowFactor     batched blocks (q, q)
    a low-rank part U K U^T as well           LowRankUpdate       c more solves, over any of these

Edges decide first: D^-1 mixes the rows then, and no row can be eliminated by itself. They take the
blocks whole, since unit blocks of what a row lacks cost a sparse factor nothing. Packing is taken
as soon as it leaves out one column, for its only cost is a copy. The border is one dense Cholesky
inside the span everywhere. An `ArrowMatrix`, whose coupling has no structure, has one factor,
`ArrowFactor`; and one whose rows meet one block of the border each has `NestedFactor`, for which a
model asks by name, since its rows are stored block by block.
"""

from __future__ import annotations

from reml_sae.linalg._lowrank import LowRankUpdate
from reml_sae.linalg._packed import PackedFactor, PackedRows
from reml_sae.linalg._span_blocks import SpanBlocks
from reml_sae.linalg._span_factor import SpanArrowFactor, SpanFactor
from reml_sae.linalg._span_sparse import SparseSpanFactor


def factorize(matrix: SpanBlocks, chunk_rows: int | None = None) -> SpanFactor:
    """Factor a matrix by its structure; see `SpanArrowMatrix.factorize`."""
    packed = None if matrix.carried is None else PackedRows(matrix.carried)
    factor: SpanFactor
    if len(matrix.edges):
        factor = SparseSpanFactor(matrix, chunk_rows)
    elif packed is not None and not packed.is_whole:
        factor = PackedFactor(matrix, packed, chunk_rows)
    else:
        factor = SpanArrowFactor(matrix, chunk_rows)
    return LowRankUpdate(factor, matrix.columns, matrix.core) if len(matrix.columns) else factor
