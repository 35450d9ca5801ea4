"""Property: the selected inverse agrees with the dense inverse, and differentiates log|H|."""

import numpy as np
import pytest

from .systems import ARROWS, SPANS, DenseSpanInverse, as_groups, assemble, assert_close

CHUNKS = [None, 1, 2]
SPAN_PARTS = ["rows", "border_trace", "jac_cross", "feature_cross"]


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("shape", ARROWS, ids=str)
def test_arrow(shape, chunk_rows):
    matrix = shape.build()
    selected = matrix.factorize(chunk_rows).selected_inverse()
    inverse, split_at, start = np.linalg.inv(matrix.to_dense()), matrix.dim - shape.border, 0
    scale = np.abs(inverse).max(initial=1e-300)
    np.testing.assert_allclose(
        selected.border, inverse[split_at:, split_at:], rtol=0, atol=1e-10 * scale)
    assert isinstance(selected.rows, list) == shape.ragged
    groups = zip(as_groups(selected.rows), as_groups(selected.coupling), shape.groups, strict=True)
    for rows, coupling, (n, q) in groups:
        index = start + np.arange(n * q).reshape(n, q)
        expected = inverse[index[:, :, None], index[:, None, :]]
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(
            coupling, inverse[index, split_at:], rtol=0, atol=1e-10 * scale)
        start += n * q


def test_arrow_traces_the_derivative_of_logdet():
    matrix = ARROWS[0].build()
    inverse = matrix.factorize().selected_inverse()
    rng = np.random.default_rng(3)
    parts = matrix.rows, matrix.coupling, matrix.border
    d_rows, d_coupling, d_border = (rng.normal(size=part.shape) for part in parts)
    d_rows, d_border = d_rows + d_rows.transpose(0, 2, 1), d_border + d_border.T
    analytic = (np.vdot(inverse.rows, d_rows) + 2 * np.vdot(inverse.coupling, d_coupling)
                + np.vdot(inverse.border, d_border))

    def logdet(t):
        moved = [a + t * b for a, b in zip(parts, (d_rows, d_coupling, d_border), strict=True)]
        return type(matrix)(*moved).factorize().logdet()

    assert analytic == pytest.approx((logdet(1e-6) - logdet(-1e-6)) / 2e-6, rel=1e-7)


@pytest.mark.parametrize("part", SPAN_PARTS)
@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span(shape, chunk_rows, part):
    matrix = shape.build()
    selected = matrix.factorize(chunk_rows).selected_inverse()
    assert_close(getattr(selected, part), getattr(DenseSpanInverse.of(matrix), part))


@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span_border_block(shape):
    matrix = shape.build()
    v = np.random.default_rng(4).normal(size=(2, shape.m, shape.p))
    expected = np.einsum("aobs,cbs->cao", DenseSpanInverse.of(matrix).border, v)
    assert_close(matrix.factorize().apply_border_inverse(v), expected)
    assert_close(matrix.factorize().apply_border_inverse(v[1]), expected[1])


@pytest.mark.parametrize("where", [slice(0, 1), slice(None), slice(1, 3)], ids=str)
@pytest.mark.parametrize("shape", SPANS, ids=str)
def test_span_coefficient_covariance(shape, where):
    matrix = shape.build()
    border = np.einsum("aobo->oab", DenseSpanInverse.of(matrix).border)
    assert_close(matrix.factorize().coefficient_covariance(where), border[:, where, where])


@pytest.mark.parametrize("name", ["features", "jacobians"])
@pytest.mark.parametrize("shape", SPANS[:5], ids=str)
def test_span_crosses_are_half_the_gradient_of_logdet(shape, name):
    # H = s sum calJ calJ^T + prior, hence d (1/2) log|H| = <s G calJ, d calJ>
    parts = shape.parts()
    selected = assemble(**parts).factorize().selected_inverse()
    cross = {"features": selected.feature_cross, "jacobians": selected.jac_cross}[name]
    direction = np.random.default_rng(5).normal(size=parts[name].shape)

    def half_logdet(t):
        moved = {**parts, name: parts[name] + t * direction}
        return 0.5 * assemble(**moved).factorize().logdet()

    numeric = (half_logdet(1e-6) - half_logdet(-1e-6)) / 2e-6
    assert np.vdot(cross, direction) == pytest.approx(numeric, rel=1e-6)
