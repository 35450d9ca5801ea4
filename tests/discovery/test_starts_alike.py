"""Partitions that a fit would settle to one are fitted once."""

import numpy as np
import pytest

from reml_sae.discovery import first_fit
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.policy import StartPolicy
from reml_sae.discovery.starts.protocol import CodeStart
from tests.discovery.test_discovery import CIRCLE, rng, settings, two_circles

LABELS = np.repeat(np.arange(8), 25)


def start(labels):
    support = labels[:, None] == np.arange(8)
    return CodeStart(Candidate(support, support.astype(float), np.zeros((len(labels), 0))), 0.9)


@pytest.mark.parametrize(("lost", "same"), [(0, True), (2, True), (10, False)])
def test_every_atom_must_have_its_rows(lost, same):
    """One of eight atoms whose rows went to another is 5 % of all rows, and another start."""
    labels = LABELS.copy()
    labels[:lost] = 1
    shared = first_fit._same_rows(start(LABELS), start(labels), 8)
    assert (shared > StartPolicy().same_rows) == same


def test_the_second_of_two_equal_starts_is_not_fitted(monkeypatch):
    Z, found = two_circles(), []

    def twice(problem, clusters, rng):
        found.extend(2 * clusters[:1])
        return found

    monkeypatch.setattr(first_fit, "_told_by_shapes", twice)
    fits = []
    rough = first_fit.rough_fit
    monkeypatch.setattr(first_fit, "rough_fit",
                        lambda *args: (fits.append(args[2]), rough(*args))[1])
    first_fit.fit_starts(MetricRows.isotropic(Z), [CIRCLE] * 2, settings(Z.shape[1]), rng())
    assert len(found) == 2
    assert fits[:1] == ["start 0"]
    assert "start 1" not in fits
