"""The structure of a span arrowhead chooses its factor, and every factor is that of the same H."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.linalg import LowRankUpdate, PackedFactor, SpanArrowFactor, SparseSpanFactor
from tests.linalg.systems import SpanShape
from tests.linalg.test_coupled import coupled

SHAPE = SpanShape(8, 3, 3, 2, 4)


def build(parts):
    """A matrix with some of: edges, rows that carry few, and a low-rank part."""
    matrix = coupled(SHAPE, "edges")[0] if "edges" in parts else SHAPE.build()
    n, q, _ = matrix.rows.shape
    if "few" in parts:
        carried = np.arange(n * q).reshape(n, q) % q > 0
        inside = carried[:, :, None] & carried[:, None, :]
        across = carried[matrix.heads][:, :, None] & carried[matrix.tails][:, None]
        edges = matrix.edges * across if len(matrix.edges) else matrix.edges
        matrix = replace(matrix, carried=carried, edges=edges,
                         rows=np.where(inside, matrix.rows, np.eye(q)),
                         jacobians=matrix.jacobians * carried[:, :, None])
    if "low rank" in parts:
        columns = np.random.default_rng(1).normal(size=(2, n, q))
        if matrix.carried is not None:
            columns *= matrix.carried
        matrix = replace(matrix, columns=columns, core=np.diag([0.5, 2.0]))
    return matrix


BASES = {(): SpanArrowFactor, ("few",): PackedFactor, ("edges",): SparseSpanFactor,
         ("edges", "few"): SparseSpanFactor}
PARTS = [(*parts, *more) for parts in BASES for more in ((), ("low rank",))]
cases = pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "+".join(parts) or "plain")


@cases
def test_choice(parts):
    factor = build(parts).factorize()
    if "low rank" in parts:
        assert isinstance(factor, LowRankUpdate)
        base = factor.base
    else:
        base = factor
    assert type(base) is BASES[tuple(part for part in parts if part != "low rank")]
    assert (factor.backend is not None) == ("edges" in parts)


@cases
@pytest.mark.parametrize("chunk_rows", [None, 3])
def test_every_factor_is_that_of_the_dense_matrix(parts, chunk_rows):
    matrix = build(parts)
    dense, factor = matrix.to_dense(), matrix.factorize(chunk_rows)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    rng = np.random.default_rng(2)
    x = rng.normal(size=matrix.rows.shape[:2]), rng.normal(size=matrix.border_shape)
    g = matrix.matvec(*x)
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in g]),
                               dense @ np.concatenate([part.ravel() for part in x]), atol=1e-11)
    for found, expected in zip(factor.solve(*g), x, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("change", [
    {"core": np.eye(3)}, {"columns": np.zeros((2, 8, 2)), "core": np.eye(2)},
    {"carried": np.ones((8, 2), bool)}], ids=lambda change: next(iter(change)))
def test_shapes_are_checked(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(SHAPE.build(), **change)
