"""Block arrowhead algebra; knows nothing of statistics."""

from reml_sae.linalg._arrow import ArrowFactor, ArrowMatrix, SelectedInverse
from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_cholesky_solve,
    batched_inverse,
    batched_is_definite,
    batched_logdet,
    batched_solve_lower,
    batched_solve_psd,
    batched_solve_upper,
)
from reml_sae.linalg._dense import DenseCholesky
from reml_sae.linalg._factor import Factor
from reml_sae.linalg._graded import RANK_TOLERANCE, GradedSum, graded_sum
from reml_sae.linalg._incidence import Incidence, MeetsAll, MeetsBlock
from reml_sae.linalg._lowrank import LowRankUpdate
from reml_sae.linalg._nested import (
    BlockFactor,
    BlockInverse,
    BorderBlocks,
    NestedBorder,
    NestedFactor,
)
from reml_sae.linalg._packed import PackedFactor, PackedRows
from reml_sae.linalg._rows import EliminatedRows
from reml_sae.linalg._span import SpanArrowMatrix
from reml_sae.linalg._span_factor import SpanArrowFactor, SpanFactor, SpanSelectedInverse
from reml_sae.linalg._span_sparse import SparseSpanFactor
from reml_sae.linalg._sparse import SparseCholesky
from reml_sae.linalg._threads import single_threaded

__all__ = [
    "RANK_TOLERANCE",
    "ArrowFactor",
    "ArrowMatrix",
    "BlockFactor",
    "BlockInverse",
    "BorderBlocks",
    "DenseCholesky",
    "EliminatedRows",
    "Factor",
    "GradedSum",
    "Incidence",
    "LowRankUpdate",
    "MeetsAll",
    "MeetsBlock",
    "NestedBorder",
    "NestedFactor",
    "PackedFactor",
    "PackedRows",
    "SelectedInverse",
    "SpanArrowFactor",
    "SpanArrowMatrix",
    "SpanFactor",
    "SpanSelectedInverse",
    "SparseCholesky",
    "SparseSpanFactor",
    "batched_cholesky",
    "batched_cholesky_solve",
    "batched_inverse",
    "batched_is_definite",
    "batched_logdet",
    "batched_solve_lower",
    "batched_solve_psd",
    "batched_solve_upper",
    "graded_sum",
    "single_threaded",
]
