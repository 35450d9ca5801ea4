"""Square unmixing: the gradient of its likelihood, and planted shells and flats that overlap."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from reml_sae.datasets import planted_manifolds
from reml_sae.errors import InputError
from reml_sae.linalg import single_threaded
from reml_sae.relaxations.block_frames import whitening
from reml_sae.relaxations.policy import UnmixingPolicy
from reml_sae.relaxations.unmixing import (
    MOST_SHARE,
    Blocks,
    _climb,
    _cost,
    climbs,
    unmixed_blocks,
)
from tests.relaxations.test_dictionary import check_contract, matched

DIMS = {"circle": 2, "plane": 2, "sphere": 3}


def planted(topologies, seed=0, n_rows=300, p=None, **options):
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


CASES = [
    (["circle"] * 4, {"n_active": 3, "p": 12}, True),
    (["circle"] * 2, {"n_active_range": (1, 2)}, False),
    (["circle", "circle", "sphere", "plane"], {"n_active": 3}, True),
    (["circle"] * 3, {"n_active": 3}, True),
]
cases = pytest.mark.parametrize(("topologies", "options", "exact"), CASES)
SEEDS = 3
APART = 12.0
"""Condition number of the stacked frames up to which noise leaves the atoms of a row in sight."""


def plants(topologies, options):
    """Plants of the first seeds whose frames are apart."""
    seeds = (seed for seed in range(1000)
             if np.linalg.cond(np.concatenate(planted(topologies, seed, **options)[3].frames))
             < APART)
    return [planted(topologies, next(seeds), **options) for _ in range(SEEDS)]


@cases
def test_planted_frames_are_found(topologies, options, exact):
    right = []
    for Z, dims, shell, data in plants(topologies, options):
        n_active = int(data.support.sum(1).max())
        starts = unmixed_blocks(Z, dims, n_active, 1, np.random.default_rng(0),
                                UnmixingPolicy(), exact=exact, shell=shell)
        check_contract(starts, Z, dims, n_active, exact)
        cosines, partner = matched(data.frames, starts[0].frames)
        right.append(cosines.min() > 0.97
                     and (starts[0].support[:, partner] == data.support).all(1).mean() > 0.93)
    assert np.mean(right) == 1.0, right


@pytest.mark.parametrize(("topologies", "options", "exact"),
                         [case for case in CASES if "p" not in case[1]])
@single_threaded
def test_the_search_comes_to_the_likelihood_of_the_plant(topologies, options, exact):
    """Whatever the frames: where noise hides the atoms, the likelihood hides them too."""
    short = []
    for seed in range(SEEDS):
        Z, dims, shell, data = planted(topologies, seed=seed, **options)
        n_active = data.support.sum(1).max()
        share = (n_active if exact else 0.5 * (1 + n_active)) / len(dims)
        blocks = Blocks(np.array(dims), np.array(shell), min(share, MOST_SHARE))
        white = whitening(Z, 0.0)[0]
        frames = np.concatenate(data.frames)
        truth = _climb(Z @ white, np.linalg.inv(frames @ white).T, blocks)[1]
        short.append(climbs(Z, blocks, np.random.default_rng(0), UnmixingPolicy())[0][1] - truth)
    assert np.mean(np.array(short) < 0.01) == 1.0, short


def test_too_many_dimensions():
    with pytest.raises(InputError, match="span 6 dimensions, more than the 4 columns"):
        unmixed_blocks(np.ones((9, 4)), [3, 3], 1, 1, np.random.default_rng(0),
                       UnmixingPolicy(), exact=True)
