"""Row computations do not depend on the chunks in which, nor on where, they are executed."""

import numpy as np
import pytest

from reml_sae.engine import criterion
from reml_sae.manifolds import Circle
from reml_sae.models.sae.rows import refine_rows, row_decrements, row_evidence, row_objective
from reml_sae.rows import RowResult, SerialRows, gather_rows, row_slices
from tests.models.sae.systems import MODELS, build, by_quadrature


class LastChunkFirst:
    """Another executor: it knows all chunks at once, and begins with the last."""

    elements = 300

    def map(self, task, chunks):
        return [task(chunk) for chunk in list(chunks)[::-1]][::-1]


EXECUTORS = {"one row": SerialRows(1), "some rows": SerialRows(400), "another": LastChunkFirst()}


@pytest.mark.parametrize(("n", "width", "elements"), [(10, 3, 9), (10, 100, 9), (0, 3, 9)])
def test_chunks_cover_the_rows_in_order(n, width, elements):
    chunks = row_slices(n, width, elements)
    assert [i for chunk in chunks for i in range(chunk.start, chunk.stop)] == list(range(n))
    assert max(chunk.stop - chunk.start for chunk in chunks) <= max(1, elements // width)


@pytest.mark.parametrize("row_map", EXECUTORS.values(), ids=EXECUTORS)
def test_results_are_gathered_in_order(row_map):
    Z = np.arange(12.0).reshape(6, 2)
    found = gather_rows(row_map, lambda z: RowResult((z, z[:, 0]), (len(z), z.sum(axis=0))),
                        (Z[i:i + 4] for i in range(0, 6, 4)))
    np.testing.assert_array_equal(found.each[0], Z)
    np.testing.assert_array_equal(found.each[1], Z[:, 0])
    assert found.sums[0] == 6
    np.testing.assert_array_equal(found.sums[1], Z.sum(axis=0))


@pytest.mark.parametrize("row_map", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("name", ["two-circles", "poisson-circle", "topk", "threshold"])
def test_rows_on_their_own(name, row_map):
    model = MODELS[name]()
    theta, rho = model.initial_theta(), model.initial_rho()
    chunked = model.with_changes(row_map=row_map)
    for function in (row_objective, row_decrements, row_evidence):
        np.testing.assert_allclose(function(chunked, theta, rho), function(model, theta, rho),
                                   rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(refine_rows(chunked, theta, rho, 3).xi,
                               refine_rows(model, theta, rho, 3).xi, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("row_map", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("name", ["ellipse", "poisson-circle"])
def test_rows_integrated_out(name, row_map):
    model = by_quadrature(name)
    rho = model.initial_rho()
    whole = criterion(model, rho, tol=1e-9)
    chunked = criterion(model.with_changes(row_map=row_map), rho, tol=1e-9)
    assert chunked.value == pytest.approx(whole.value, rel=1e-10)
    np.testing.assert_allclose(chunked.gradient, whole.gradient, rtol=1e-6, atol=1e-8)


def test_none_of_the_rows_is_a_chunk_too():
    model = build([Circle(1), Circle(1)]).rows(np.zeros(0, np.intp))
    theta, rho = model.initial_theta(), model.initial_rho()
    assert row_objective(model, theta, rho).shape == (0,)
    assert refine_rows(model, theta, rho, 2).xi.shape == theta.xi.shape
