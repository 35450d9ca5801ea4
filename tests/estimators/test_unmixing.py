"""Square unmixing: the gradient of its likelihood, and planted shells and flats that overlap."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from reml_sae.datasets import planted_manifolds
from reml_sae.errors import InputError
from reml_sae.estimators._unmixing import Blocks, _cost, unmixed_blocks
from tests.estimators.test_dictionary import check_contract, matched

DIMS = {"circle": 2, "plane": 2, "sphere": 3}


def planted(topologies, seed=0, n_rows=500, p=None, **options):
    """Scaled rows, dimensions and shells of the atoms, and the plant."""
    dims = [DIMS[name] for name in topologies]
    data = planted_manifolds(n_rows, p or sum(dims), topologies, random_state=seed, **options)
    Z = data.Z - data.Z.mean(axis=0)
    return Z / np.sqrt((Z**2).mean()), dims, [name != "plane" for name in topologies], data


@pytest.mark.parametrize("width", [0.3, 0.12])
def test_gradient_of_the_likelihood(width):
    Z, dims, shell, _ = planted(["circle", "sphere", "plane"], n_active=2)
    blocks = Blocks(np.array(dims), np.array(shell), 0.6)
    w = np.random.default_rng(1).standard_normal(Z.shape[1] ** 2)
    numeric = approx_fprime(w, lambda v: _cost(v, Z, blocks, width)[0], 1e-6)
    np.testing.assert_allclose(_cost(w, Z, blocks, width)[1], numeric, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("topologies", "options", "exact"),
    [
        (["circle"] * 4, {"n_active": 3}, True),
        (["circle"] * 4, {"n_active": 3, "p": 12}, True),
        (["circle"] * 2, {"n_active_range": (1, 2)}, False),
        (["circle", "circle", "sphere", "plane"], {"n_active": 3}, True),
    ],
)
def test_planted_frames_are_found(topologies, options, exact):
    Z, dims, shell, data = planted(topologies, seed=3, **options)
    starts = unmixed_blocks(Z, dims, int(data.support.sum(1).max()), 2, np.random.default_rng(0),
                            exact=exact, shell=shell)
    check_contract(starts, Z, dims, int(data.support.sum(1).max()), exact)
    cosines, partner = matched(data.frames, starts[0].frames)
    assert cosines.min() > 0.97
    assert (starts[0].support[:, partner] == data.support).all(1).mean() > 0.93


def test_rows_that_use_every_atom():
    Z, dims, shell, data = planted(["circle"] * 3, n_active=3)
    start = unmixed_blocks(Z, dims, 3, 2, np.random.default_rng(0), exact=True, shell=shell)[0]
    assert start.support.all()
    assert matched(data.frames, start.frames)[0].min() > 0.97


def test_too_many_dimensions():
    with pytest.raises(InputError, match="span 6 dimensions, more than the 4 columns"):
        unmixed_blocks(np.ones((9, 4)), [3, 3], 1, 1, np.random.default_rng(0), exact=True)
