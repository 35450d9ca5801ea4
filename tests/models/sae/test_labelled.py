"""Rows in the spans of their own decoders against the arrow model of the same rows."""

import numpy as np
import pytest

from reml_sae.assignments import TopK
from reml_sae.engine import Theta
from reml_sae.estimators._swept import model_of, structure_of
from reml_sae.manifolds import Circle, Interval, Sphere
from reml_sae.models.sae.defaults import default_terms
from reml_sae.models.sae.labelled import OwnSpans
from reml_sae.models.sae.rows import row_decrements, row_evidence, row_objective
from reml_sae.models.sae.single.summed import RowSums, SummedPoint
from reml_sae.rows import SerialRows, ThreadRows

UNIT = 1.7
CASES = {
    "circles": ([Circle(1)] * 3, 7),
    "of two kinds": ([Circle(2), Interval(5), Circle(2)], 9),
    "no wider than their decoders": ([Circle(2), Sphere(1)], 3),
}


def system(case, seed, n=60):
    """The arrow model at random states; the last atom of the first kind has no rows."""
    atoms, p = CASES[case]
    rng, K = np.random.default_rng(seed), len(atoms)
    structure = structure_of(atoms, default_terms(atoms, TopK(K, 1)), UNIT, p)
    beta = 0.8 * rng.normal(size=(structure.layout.basis_size, p))
    beta[-1] = 0.0
    rho = 0.3 * rng.normal(size=len(structure.outer))
    rho[structure.outer.psi] = np.log(0.3)
    model = model_of(structure, beta, rho)
    labels = rng.integers(K - 1, size=n)
    xi = np.zeros((n, K + model.layout.n_coordinates))
    points = np.zeros((n, max(atom.latent_dim for atom in atoms)))
    xi[np.arange(n), labels] = u = 0.2 * rng.normal(size=n)
    for k, atom in enumerate(atoms):
        mine, grid = np.flatnonzero(labels == k), atom.grid(40)
        points[mine, :atom.latent_dim] = grid[rng.integers(len(grid), size=len(mine))]
        xi[mine[:, None], np.arange(xi.shape[1])[model.coordinate_columns(k)]] = points[
            mine, :atom.latent_dim]
    Z = rng.normal(size=(n, p))
    whole = model.with_changes(Z=Z, active=labels[:, None] == np.arange(K), theta=Theta(xi, beta),
                               metrics=np.zeros(n, np.intp))
    return whole, OwnSpans.of(model, beta, rho), labels, np.exp(u), points


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_arrow_model(case, seed):
    whole, spans, labels, amplitudes, points = system(case, seed)
    projected, theta = spans.project(whole.Z, labels), whole.theta
    before = spans.rows(projected, labels, amplitudes, points, SerialRows())
    for parts, state in ((before, theta), ([part.refined(8) for part in before],
                                           whole.refine_rows(theta, whole.rho, 8))):
        found = np.empty((4, len(labels)))
        for part in parts:
            found[:, part.kind.rows] = (part.objectives(), part.evidence(), part.decrements(),
                                        part.residuals())
        eta = whole.scaled_basis(state)[1] @ state.beta
        expected = (row_objective(whole, state, whole.rho), row_evidence(whole, state, whole.rho),
                    row_decrements(whole, state, whole.rho), ((whole.Z - eta) ** 2).sum(axis=1))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
        sums = RowSums.of_kinds([part.sums() for part in parts])
        known = RowSums.of(whole, state, whole.rho)
        assert sums.value == pytest.approx(known.value, abs=1e-6)
        assert sums.edf == pytest.approx(known.edf, abs=1e-5) and sums.n_rows == known.n_rows
        V = [SummedPoint(whole, whole.theta.beta, whole.rho, own) for own in (sums, known)]
        assert V[0].criterion == pytest.approx(V[1].criterion, abs=1e-6)
        np.testing.assert_allclose(V[0].decoder_posterior(0)[1], V[1].decoder_posterior(0)[1],
                                   atol=1e-8)


def test_distances_from_centres():
    whole, spans, labels, amplitudes, points = system("of two kinds", 4)
    for part in spans.rows(spans.project(whole.Z, labels), labels, amplitudes, points,
                           SerialRows()):
        rows = part.kind.rows
        first = [whole.layout.basis_slices[k].start for k in labels[rows]]
        apart = ((whole.Z[rows] - whole.theta.beta[first]) ** 2).sum(axis=1)
        np.testing.assert_allclose(part.from_centres(), apart, rtol=1e-10)


def test_chunks_in_threads_give_the_same_bits():
    whole, spans, labels, amplitudes, points = system("circles", 5, n=300)
    projected = spans.project(whole.Z, labels)
    found = [spans.rows(projected, labels, amplitudes, points, rows)[0].refined(5)
             for rows in (SerialRows(400), ThreadRows(3, 400))]
    np.testing.assert_array_equal(found[0].batch.theta.xi, found[1].batch.theta.xi)
    assert found[0].sums().value == found[1].sums().value
