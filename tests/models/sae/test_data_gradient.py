"""The gradient of V in the rows, from which that in the noise's parameters follows."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.engine import criterion

CASES = {
    "circle": (["circle"], {"integration": "quadrature"}),
    "circle, Laplace": (["circle"], {"integration": "laplace"}),
    "circle, exact": (["circle"], {"integration": "laplace", "curvature": "exact"}),
    "line": (["linear"], {"integration": "quadrature"}),
    "sphere": (["sphere"], {"integration": "quadrature"}),
    "cylinder": (["cylinder"], {"integration": "quadrature"}),
    "topk": (["circle", "circle"], {"assignment": "topk", "integration": "quadrature"}),
    "softmax": (["circle", "circle"], {}),
    "softmax, exact": (["circle", "circle"], {"curvature": "exact"}),
    "circle and line, topk": (["circle", "linear"], {"assignment": "topk"}),
}


@pytest.mark.parametrize("name", CASES)
def test_data_gradient(name):
    topologies, options = CASES[name]
    data = planted_manifolds(40 * len(topologies), 5, topologies, noise_sd=0.25, offset=0.5,
                             random_state=1)
    options = {"n_atoms": len(topologies), "topology": topologies, "n_init": 1, **options}
    fit = rs.SAEManifold(**options).fit(data.Z)
    model = fit.build_model(data.Z).decided()
    curvature = options.get("curvature", "majorizer")
    rho = model.initial_rho() + 0.1  # off the optimum, where V has a slope
    at = criterion(model, rho, curvature=curvature, tol=1e-12)
    found = at.inner.point.data_gradient(at.adjoint, curvature)
    rng = np.random.default_rng(0)
    for step in rng.normal(size=(2, *model.Z.shape)):
        h = 1e-3

        def value(size, step=step):
            moved = model.with_changes(Z=model.Z + size * step)
            return criterion(moved, rho, theta=at.inner.point.theta, curvature=curvature,
                             gradient=False, tol=1e-12).value

        slope = (8.0 * (value(h) - value(-h)) - (value(2.0 * h) - value(-2.0 * h))) / (12.0 * h)
        # amplitudes of a line have a rule that is right to a part of 1e-7 of V
        bound = 2e-5 if name == "circle and line, topk" else 1e-6
        assert abs(np.vdot(found, step) - slope) < bound * np.linalg.norm(found)
