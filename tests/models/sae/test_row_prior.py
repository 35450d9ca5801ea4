"""The prior of the rows: what V takes of it is the sum of what row evidence takes."""

import numpy as np
import pytest

from reml_sae.models.sae.row_prior import GatePrior
from tests.models.sae.systems import MODELS

NAMES = ["line-ard", "two-circles-warm", "topk-pair", "gates", "threshold", "three-shapes"]


@pytest.fixture(params=NAMES)
def point(request):
    model = MODELS[request.param]()
    return model.joint_at(model.initial_theta(), model.initial_rho())


def test_values_add_up(point):
    """But of the gates, whose prior is one of all rows together."""
    structure, prior = point.structure, point.row_prior
    opening = (structure.is_open @ structure.opening_costs(point.rho)).sum()
    own = prior.value() - GatePrior(structure, point.rho).value()
    assert prior.values().sum() - opening == pytest.approx(own, rel=1e-12)


def test_log_partitions_add_up(point):
    """But what all rows have alike."""
    structure, prior, n = point.structure, point.row_prior, len(point.eta)
    alike = n * structure.assignment.log_patterns()
    logits = [term for term in structure.terms if term.target == "logits"]
    alike += sum(term.penalty.log_partition(term.rho(point.rho), n)[0] for term in logits)
    if not logits:
        alike += n * structure.assignment.log_volume()
    alike += GatePrior(structure, point.rho).log_partition()[0]
    assert prior.log_partitions().sum() + alike == pytest.approx(prior.log_partition()[0],
                                                                 rel=1e-12)


def test_the_slope_of_the_log_partition(point):
    step, structure = 1e-5, point.structure
    slopes = []
    for unit in np.eye(len(point.rho)):
        up, down = (type(point.row_prior)(structure, point.theta, point.rho + sign * step * unit,
                                          point.row_prior.amplitudes).log_partition()[0]
                    for sign in (1.0, -1.0))
        slopes.append((up - down) / (2.0 * step))
    np.testing.assert_allclose(point.row_prior.log_partition()[1], slopes, rtol=1e-6, atol=1e-6)
