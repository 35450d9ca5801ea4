"""`check_manifold` passes every topology, and fails each thing that can be wrong with one."""

import numpy as np
import pytest

from reml_sae.manifolds import Circle, Interval, check_manifold
from tests.manifolds.cases import every


@every
def test_every_topology_passes(manifold):
    report = check_manifold(manifold, seed=3)
    assert report.passed, f"\n{report}"


def wrong(name, change, base=Circle):
    """A topology of which one method returns something else."""
    def method(self, *arguments):
        return change(getattr(base, name)(self, *arguments))

    return type("Wrong", (base,), {name: method})


def scaled(order, factor=1.01):
    def change(jet):
        return tuple(factor * part if k == order else part for k, part in enumerate(jet))

    return change


FAULTS = {
    "basis derivative 1": ("jet", scaled(1), Circle),
    "basis derivative 3": ("jet", scaled(3), Circle),
    "prior derivative 1": ("prior_jet", scaled(1), Interval),
    "constant first": ("jet", lambda jet: tuple(2.0 * part for part in jet), Circle),
    "finite at 0": ("jet", scaled(2, np.nan), Circle),
    "roughness symmetry": ("roughness", lambda S: S + np.triu(np.ones_like(S), 1), Circle),
    "roughness >= 0": ("roughness", lambda S: -S, Circle),
    "constant not rough": ("roughness", lambda S: S + np.eye(len(S)), Circle),
    "gauge undone": ("gauge_generators", lambda R: 1.1 * R, Circle),
    "gauge field": ("gauge_field", lambda f: 1.1 * f, Circle),
    "retract by nothing": ("retract", lambda t: t + 0.01, Circle),
    "volume of no step": ("log_step_volume", lambda v: v + 0.1, Circle),
    "distance to itself": ("distance", lambda d: d + 0.1, Circle),
    "ambient and back": ("ambient", lambda x: x[:, ::-1], Circle),
    "columns": ("ambient", lambda x: np.column_stack([x, x]), Circle),
    "mean basis": ("prior_mean_basis", lambda m: m + 0.1, Circle),
    "configuration": ("to_config", lambda c: {"topology": "no_such_shape"}, Circle),
}
OTHERS = {
    "retract along a step": {"retract": lambda self, t, step: t + 0.5 * step},
    "distance symmetry": {"distance": lambda self, t, u: np.abs(2.0 * t - u)[:, 0]},
}


@pytest.mark.parametrize("figure", [*FAULTS, *OTHERS])
def test_a_fault_is_named(figure):
    if figure in OTHERS:
        topology = type("Wrong", (Circle,), OTHERS[figure])(3)
    else:
        name, change, base = FAULTS[figure]
        topology = wrong(name, change, base)(3 if base is Circle else 6)
    report = check_manifold(topology)
    assert not report.passed and not report.figures[figure] <= report.tolerance, f"\n{report}"
    assert f"FAIL  {figure}" in str(report)
