"""Block arrowhead algebra; knows nothing of statistics."""

from reml_sae.linalg._arrow import ArrowFactor, ArrowMatrix, SelectedInverse
from reml_sae.linalg._batched import (
    batched_cholesky,
    batched_inverse,
    batched_logdet,
    batched_solve_psd,
)
from reml_sae.linalg._span import SpanArrowFactor, SpanArrowMatrix, SpanSelectedInverse

__all__ = [
    "ArrowFactor",
    "ArrowMatrix",
    "SelectedInverse",
    "SpanArrowFactor",
    "SpanArrowMatrix",
    "SpanSelectedInverse",
    "batched_cholesky",
    "batched_inverse",
    "batched_logdet",
    "batched_solve_psd",
]
