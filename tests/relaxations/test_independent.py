"""Independent directions: atoms and their dimensions, as the rows tell them."""

import numpy as np
import pytest

from reml_sae.datasets import superposed_manifolds
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.independent import grouped, packed, told_frames
from reml_sae.relaxations.policy import BlockPolicy

WIDTHS = {"segment": 1, "circle": 2, "disk": 2, "sphere": 3, "torus": 3}


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_rows_tell_the_atoms_and_their_dimensions(seed):
    data = superposed_manifolds(1200, 24, 8, 2, random_state=seed)
    axes = np.linalg.svd(data.Z, full_matrices=False)[2]
    found = told_frames(data.Z @ axes.T, 8, np.random.default_rng(seed))
    planted = [np.linalg.svd(part, full_matrices=False)[2][:WIDTHS[kind]]
               for kind, part in zip(data.kinds, data.contributions, strict=True)]
    for frame in planted:  # every one is that of just one atom, of its dimensions
        least = [np.linalg.svd(frame @ axes.T @ f.T, compute_uv=False).min()
                 if len(f) == len(frame) else 0.0 for f in found]
        assert max(least) > 0.98


@pytest.mark.parametrize("seed", [0, 1])
def test_other_dimensions_than_the_rows_tell_are_not_forced(seed):
    """Atoms whose linear dimensions are not those of the data: a torus of four has three."""
    data = superposed_manifolds(1200, 24, 8, 2, random_state=seed)
    Z = data.Z - data.Z.mean(axis=0)
    told = block_dictionary(Z, [1] * 4 + [2, 2, 3, 4], 2, 1, np.random.default_rng(seed),
                            BlockPolicy(), exact=True, tell=True)[0]
    assert sorted(len(frame) for frame in told.frames) == [1, 1, 1, 1, 2, 2, 3, 3]
    assert told.explained > 0.999
    lines = block_dictionary(Z, [1] * 8, 2, 1, np.random.default_rng(seed), BlockPolicy(),
                             exact=True)[0]
    assert [len(frame) for frame in lines.frames] == [1] * 8


def test_groups_are_those_that_are_alike_and_fit():
    alike = np.full((5, 5), -0.1)
    alike[:2, :2] = alike[2:, 2:] = 0.5
    assert sorted(map(sorted, grouped(alike, 0.2))) == [[0, 1], [2, 3, 4]]
    assert sorted(map(len, grouped(alike, dims=np.array([2, 2, 1])))) == [1, 2, 2]
    assert packed([[0, 1], [2, 3]], np.array([1, 3])) is None
