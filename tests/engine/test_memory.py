"""The bound of docs/memory.md."""

import tracemalloc

import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.manifolds import Circle
from reml_sae.rows._map import CHUNK_ELEMENTS


@pytest.mark.parametrize(("n", "p", "k"), [(500, 32, 2), (2000, 32, 2), (1000, 16, 4),
                                           (1000, 100, 1)])
@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_criterion(n, p, k):
    data = planted_circles(n, p, k, noise_sd=0.05)
    fitted = rs.SAEManifold(n_atoms=k, topology=Circle(2), max_outer=1, n_init=1,
                            integration="laplace").fit(data.Z)
    model = fitted.build_model(data.Z)
    tracemalloc.start()
    rs.criterion(model, fitted.rho_)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    q, m = 2 * k - 1, model.layout.basis_size
    r = min(p, m)
    doubles = 10 * n * p + 16 * n * q * (q + r) + 12 * (m * r) ** 2
    assert peak <= 8 * doubles + 2**20


@pytest.mark.parametrize(("n", "p"), [(1000, 20), (8000, 20), (2000, 100)])
@pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning")
def test_quadrature(n, p):
    """Chunks over rows and nodes, arrays of (M p)^2 and of nodes times p^2, whatever N is."""
    data = planted_circles(n, p, 1, noise_sd=0.1)
    fitted = rs.SAEManifold(n_atoms=1, topology=Circle(2), max_outer=1, n_init=1).fit(data.Z)
    model = fitted.build_model(data.Z)
    assert model.by_quadrature
    nodes = model.row_quadrature(model.initial_theta().beta, fitted.rho_).n_nodes
    tracemalloc.start()
    rs.criterion(model, fitted.rho_)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = model.layout.basis_size * p
    doubles = 10 * CHUNK_ELEMENTS + 12 * size**2 + 6 * nodes * p**2 + 6 * n * p
    assert peak <= 8 * doubles + 2**20
