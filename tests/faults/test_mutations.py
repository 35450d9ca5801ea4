"""A share of the battery of `benchmarks/mutations.py`: errors are ours, figures are finite."""

import warnings

import numpy as np
import pytest

from reml_sae.errors import ConvergenceWarning, DataWarning, RemlSaeError
from tests.faults.mutations import mutated
from tests.faults.readers import READERS

SEEDS = range(1000, 1016)
NEEDS = {"rows, zarr": "zarr", "rows, arrow": "pyarrow"}


LONG = ("fit, factor noise", "fit, gates, ard", "fit, shape searched", "fit, topk, t rows")
"""To write; they are in the battery alone."""


@pytest.mark.parametrize("name", [name for name in READERS if name not in LONG])
def test_a_file_that_was_changed_is_refused_or_read(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    reader = READERS[name]
    good = tmp_path / "good" / reader.name
    good.parent.mkdir()
    reader.write(good)
    assert all(np.isfinite(value).all() for value in reader.use(good)), "it is good"
    refused = 0
    for seed in SEEDS:
        bad = mutated(reader, good, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", DataWarning)
            # a list of names in the place of none makes a fit of named columns
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            try:
                used = reader.use(bad)
            except RemlSaeError as error:
                assert str(error), f"seed {seed}"
                refused += 1
            else:
                assert all(np.isfinite(value).all() for value in used), f"seed {seed}"
    assert refused > len(SEEDS) // 4
