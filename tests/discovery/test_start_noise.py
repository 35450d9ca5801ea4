"""The noise from which a fit starts is that of the rows, not what their codes have left of it."""

import numpy as np
import pytest

from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery.codes import Candidate, hard_shares
from reml_sae.discovery.fitting import Settings, model_from_codes
from reml_sae.discovery.metric import MetricRows
from reml_sae.estimators._validation import default_terms
from reml_sae.families import Gaussian
from reml_sae.manifolds import Circle, Sphere

ATOMS = {"circle": Circle(), "sphere": Sphere()}
SEEDS, SD = range(5), 0.2


def own_angles(Z, frame, name):
    """Nearest points of unit circles and spheres, as coordinates."""
    local = Z @ frame.T
    if name == "sphere":
        return local / np.linalg.norm(local, axis=1, keepdims=True)
    return np.arctan2(local[:, 1], local[:, 0])[:, None]


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
@pytest.mark.parametrize("names", [["circle"], ["sphere"], ["circle", "sphere"]])
def test_noise_at_the_start(names, assignment):
    atoms = [ATOMS[name] for name in names]
    chosen = get_assignment(assignment, len(atoms), n_active=1)
    for seed in SEEDS:
        plant = planted_manifolds(400, 6, names, noise_sd=SD, orthogonal=True, random_state=seed)
        settings = Settings(
            bind=lambda atoms: default_terms(atoms, chosen), assign=lambda k: chosen,
            curvature="majorizer", max_outer=1, tol=1e-6, n_init=1, callbacks=(),
            family=Gaussian(), offset=np.zeros(6))
        t = np.hstack([own_angles(plant.Z, frame, name)
                       for frame, name in zip(plant.frames, names, strict=True)])
        shares = (np.ones((400, len(atoms))) if assignment == "topk"
                  else hard_shares(plant.support.argmax(axis=1), len(atoms), 0.95))
        model = model_from_codes(MetricRows.isotropic(plant.Z), atoms, settings,
                                 Candidate(plant.support, shares, t))
        assert np.exp(0.5 * model.initial_rho()[-1]) == pytest.approx(SD, rel=0.06)
