"""A model with another state, or of some rows, is what its constructor would make of the same."""

from dataclasses import fields, replace

import numpy as np
import pytest

from reml_sae.engine import Theta
from tests.models.sae.kinds import CARRIED


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return repr(one) == repr(other)


@pytest.mark.parametrize("kind", CARRIED, ids=lambda kind: kind.name)
def test_copies_are_as_constructed(kind):
    model = kind.model()
    theta, rho = model.initial_theta(), model.initial_rho()
    active = model.active.copy()
    active[::2] = True
    index = np.arange(len(model.Z) // 2)
    changes = [{"theta": theta.scaled(2.0), "rho": rho + 1.0, "active": active},
               {"offset": model.offset + 1.0}]
    pairs = [(model.with_changes(**change), replace(model, **change)) for change in changes]
    pairs.append((model.rows(index), replace(model, **model._of_rows(index))))
    for copied, made in pairs:
        for field in fields(made):
            if field.name in ("_last", "theta"):
                continue
            assert same(getattr(copied, field.name), getattr(made, field.name)), field.name
        assert np.array_equal(copied.theta.xi, made.theta.xi)
        assert copied.outer.names == made.outer.names
        assert not copied.active.flags.writeable
        at = Theta(copied.theta.xi, copied.theta.beta)
        assert copied.row_objective(at, copied.rho) == pytest.approx(
            made.row_objective(at, made.rho), rel=1e-14)
