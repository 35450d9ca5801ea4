"""The bound of docs/memory.md."""

import tracemalloc

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_circles
from reml_sae.engine import Theta
from reml_sae.manifolds import Circle
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.defaults import default_terms
from reml_sae.models.sae.priors import with_own_priors
from reml_sae.models.sae.start import solve_beta
from reml_sae.rows._map import CHUNK_ELEMENTS


@pytest.mark.parametrize(("n", "p", "k"), [(500, 32, 2), (2000, 32, 2), (1000, 16, 4),
                                           (1000, 100, 1)])
def test_criterion(n, p, k):
    model = planted(planted_circles(n, p, k, noise_sd=0.05), Circle(2), "softmax", "laplace")
    tracemalloc.start()
    rs.criterion(model, model.initial_rho(), tol=1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    q, m = 2 * k - 1, model.layout.basis_size
    r = min(p, m)
    doubles = 10 * n * p + 16 * n * q * (q + r) + 12 * (m * r) ** 2
    assert peak <= 8 * doubles + 2**20


@pytest.mark.parametrize(("n", "p", "k"), [(1000, 16, 4), (2000, 64, 16)])
def test_criterion_of_rows_that_use_one_atom(n, p, k):
    data = planted_circles(n, p, k, noise_sd=0.05, orthogonal=2 * k <= p)
    model = planted(data, Circle(2), "topk", "laplace")
    tracemalloc.start()
    rs.criterion(model, model.initial_rho(), tol=1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.kinds
    m, q = Circle(2).basis_size + 1, 2 * k
    r = min(p, m - 2)
    doubles = (12 * n * p + 5 * n * (m + r) ** 2 + 5 * n * q + 12 * k * (m * r) ** 2 + 6 * p**2)
    assert peak <= 8 * doubles + 2**20


def planted(data, atom, assignment, integration):
    """A model of the planted rows at their true codes."""
    k = len(data.topologies)
    chart = get_assignment(assignment, k)
    terms = with_own_priors(chart, default_terms([atom] * k, chart))
    xi = np.concatenate([np.zeros((len(data.Z), chart.dim)), *data.coordinates], axis=1)
    rho = np.concatenate([*(term.penalty.initial_rho() for term in terms), [np.log(0.5)]])
    rows = data.Z / np.sqrt((data.Z**2).mean())
    size = k * atom.basis_size + chart.has_intercept
    model = SAEManifoldModel(
        rows, [atom] * k, terms, data.support, Theta(xi, np.zeros((size, rows.shape[1]))), rho,
        assignment=chart, integration=integration)
    return model.with_state(solve_beta(model, model.theta, rho), rho)


@pytest.mark.parametrize(("n", "p"), [(1000, 20), (8000, 20), (2000, 100)])
def test_quadrature(n, p):
    """Chunks over rows and nodes, arrays of (M p)^2 and of nodes times p^2, whatever N is."""
    model = planted(planted_circles(n, p, 1, noise_sd=0.1), Circle(2), "softmax", "quadrature")
    assert model.by_quadrature
    nodes = model.row_quadrature(model.initial_theta().beta, model.initial_rho()).n_nodes
    tracemalloc.start()
    rs.criterion(model, model.initial_rho(), tol=1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = model.layout.basis_size * p
    doubles = 10 * CHUNK_ELEMENTS + 12 * size**2 + 6 * nodes * p**2 + 6 * n * p
    assert peak <= 8 * doubles + 2**20
