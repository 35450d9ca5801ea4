"""Property: memory follows the chunk, not the number of rows; chunks do not change the result."""

import tracemalloc

import numpy as np
import pytest

from .systems import ArrowShape, SpanShape


def peak(function):
    """Largest memory in use during a call, above what was in use before, and its result."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


def test_span_memory_does_not_scale_with_row_pairs():
    q, m, r, chunk = 2, 24, 6, 100
    small, large = (SpanShape(n, q, m, r, 32).build() for n in (1000, 9000))
    more_rows = 8000
    pairs = 8 * more_rows * m * (m + 1) // 2
    stored = 8 * more_rows * 3 * q * q  # factors and inverses, and a temporary
    first, a = peak(lambda: small.factorize(chunk))
    second, b = peak(lambda: large.factorize(chunk))
    assert second - first < 2 * stored < 0.2 * pairs
    first, _ = peak(a.selected_inverse)
    second, _ = peak(b.selected_inverse)
    outputs = 8 * more_rows * (q * q + q * r + 2 * m)
    assert second - first < 2 * outputs < 0.5 * pairs


def test_span_memory_does_not_scale_with_outputs():
    narrow, wide = (SpanShape(200, 2, 8, 4, p).build() for p in (64, 640))
    first, _ = peak(lambda: narrow.factorize().selected_inverse())
    second, _ = peak(lambda: wide.factorize().selected_inverse())
    assert second < 1.2 * first


def test_arrow_factor_does_not_hold_a_copy_of_the_coupling():
    matrix = ArrowShape(((4000, 3),), 60).build()
    used, _ = peak(lambda: matrix.factorize(chunk_rows=50))
    assert used < 0.25 * matrix.coupling.nbytes


@pytest.mark.parametrize("chunk_rows", [1, 7, 50, 1000])
def test_span_chunks_change_nothing(chunk_rows):
    matrix = SpanShape(50, 3, 5, 4, 6, c=1).build()
    whole, chunked = matrix.factorize(), matrix.factorize(chunk_rows)
    assert chunked.logdet() == pytest.approx(whole.logdet(), rel=1e-12)
    a, b = whole.selected_inverse(), chunked.selected_inverse()
    for name in ("rows", "border_trace", "jac_cross", "feature_cross"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-10, atol=1e-12)
