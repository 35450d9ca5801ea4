"""Outer parameters and those of the noise polished together."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery import polish
from reml_sae.manifolds import Circle


class Polished(Exception):
    """The first of a fit, which needs not go on."""


@pytest.mark.parametrize("seed", range(3))
def test_it_ends_at_an_optimum_with_a_strength_at_its_bound(seed, monkeypatch):
    """A weak circle in many columns has the largest ridge there is, and V would have more."""
    minimize, ends = polish.minimize, []

    def recorded(value, start, **options):
        ends.append((value(start)[0], minimize(value, start, **options), options["bounds"]))
        raise Polished

    monkeypatch.setattr(polish, "minimize", recorded)
    rng = np.random.default_rng(seed)
    Z = planted_manifolds(100, 60, ["circle"], random_state=seed).signal
    Z = Z + rng.normal(size=Z.shape) * np.geomspace(0.2, 0.8, 60)
    with pytest.raises(Polished):
        rs.SAEManifold(n_atoms=1, topology=Circle(2), noise="diagonal", n_init=1).fit(Z)
    before, end, bounds = ends[0]
    assert (end.x >= bounds[:, 1]).any()
    assert end.success, end.message
    assert end.fun < before - 0.05
