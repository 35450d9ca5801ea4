"""How a fit ended: one status, from which converged, interrupted and the message follow."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.engine import Deadline, InnerStatus, OuterStatus, deadline
from reml_sae.errors import NotPositiveDefiniteError
from reml_sae.models import MixedModel


def model():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 5)
    y = 1.0 + rng.normal(size=20)[group] + 0.5 * rng.normal(size=100)
    return MixedModel(y, np.ones(100), groups=group, Z=np.ones(100))


def stopping(error):
    """Callback that stops the fit at its second row."""
    def callback(row):
        if row.iteration == 1:
            raise error
    return callback


ENDS = {
    OuterStatus.STATIONARY: {},
    OuterStatus.ROUGH: {"rough": True},
    OuterStatus.SPENT: {"max_outer": 1},
    OuterStatus.OUT_OF_TIME: {"max_time": 0.0},
    OuterStatus.INTERRUPTED: {"callbacks": [stopping(KeyboardInterrupt())]},
    OuterStatus.FAILED: {"callbacks": [stopping(NotPositiveDefiniteError("no factor"))]},
}


@pytest.mark.parametrize("status", ENDS, ids=lambda status: status.name)
def test_a_fit_says_how_it_ended(status):
    fit = rs.fit_reml(model(), **ENDS[status])
    assert fit.status is status and fit.message.startswith(status.value)
    assert fit.converged == (status is OuterStatus.STATIONARY)
    assert fit.interrupted == (status in (OuterStatus.OUT_OF_TIME, OuterStatus.INTERRUPTED))
    assert np.isfinite(fit.criterion) and len(fit.rho) == len(fit.gradient)
    if status is OuterStatus.FAILED:
        assert fit.message.endswith("no factor")


def test_another_end_is_told_of_the_same_state():
    fit = rs.fit_reml(model())
    told = fit.ended(OuterStatus.SPENT, "too few rounds")
    assert (told.converged, told.interrupted, told.message) == (False, False, "too few rounds")
    assert told.ended(OuterStatus.FLAT).message == OuterStatus.FLAT.value
    assert told.ended(OuterStatus.FLAT).converged and told.value is fit.value


def test_a_status_is_a_sentence_of_its_own():
    sentences = [status.value for status in (*OuterStatus, *InnerStatus)]
    assert len(set(sentences)) == len(sentences) == len(OuterStatus) + len(InnerStatus)
    assert not any(status.converged and status.interrupted for status in OuterStatus)


def test_a_deadline_says_why():
    with pytest.raises(KeyboardInterrupt) as stop:
        Deadline.within(0.0).check()
    assert deadline.reason(stop.value) is OuterStatus.OUT_OF_TIME
    assert deadline.reason(KeyboardInterrupt()) is OuterStatus.INTERRUPTED
    asked = Deadline.within(1e6)
    asked.check()
    asked.interrupt.set()
    with pytest.raises(KeyboardInterrupt) as stop:
        asked.check()
    assert deadline.reason(stop.value) is OuterStatus.INTERRUPTED
