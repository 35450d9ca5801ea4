"""Property: the log-determinant agrees with dense algebra."""

import numpy as np
import pytest

from .systems import ARROWS, SPANS


@pytest.mark.parametrize("chunk_rows", [None, 1, 3])
@pytest.mark.parametrize("shape", [*ARROWS, *SPANS], ids=str)
def test_logdet(shape, chunk_rows):
    matrix = shape.build()
    sign, expected = np.linalg.slogdet(matrix.to_dense())
    assert sign == 1
    assert matrix.factorize(chunk_rows).logdet() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_logdet_neither_overflows_nor_underflows(scale):
    matrix = ARROWS[0].build()
    other = type(matrix)(scale * matrix.rows, scale * matrix.coupling, scale * matrix.border)
    expected = matrix.factorize().logdet() + matrix.dim * np.log(scale)
    assert other.factorize().logdet() == pytest.approx(expected, rel=1e-12)
