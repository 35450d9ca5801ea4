"""The prior of centres is kept with a fit."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles


@pytest.mark.parametrize("row_noise", ["gaussian", "student_t"])
@pytest.mark.parametrize("noise", ["diagonal", {"kind": "factor", "rank": 1}])
def test_a_fit_that_is_built_again_has_its_v(tmp_path, noise, row_noise):
    plant = planted_circles(80, 6, 1, noise_sd=0.0, random_state=0)
    rng = np.random.default_rng(0)
    Z = plant.Z + 0.3 * rng.standard_normal(plant.Z.shape) * np.geomspace(0.3, 2.0, 6)
    fit = rs.SAEManifold(n_atoms=1, topology="circle", noise=noise, row_noise=row_noise,
                         n_init=1).fit(Z)
    fit.save(tmp_path / "fit")
    for one in (fit, rs.load(tmp_path / "fit")):
        model = one.build_model(Z)
        assert rs.criterion(model, model.initial_rho(), gradient=False).value == pytest.approx(
            fit.criterion_, abs=1e-5)
