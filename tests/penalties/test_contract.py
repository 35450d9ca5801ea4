"""What every registered penalty fulfils: derivatives, majorizer, configuration, schedules."""

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError

RNG = np.random.default_rng(3)
ROUGHNESS = np.diag([0.0, 1.0, 4.0, 9.0])
CASES = [
    (pen.SoftmaxAssignmentSparsityPenalty(k_atoms=4, temperature=0.7), RNG.normal(size=(5, 4))),
    (pen.SoftmaxAssignmentSparsityPenalty(k_atoms=2, weight=3.0), RNG.normal(size=(9, 2))),
    (pen.ARDPenalty(latent_dim=2), RNG.normal(size=(6, 2))),
    (pen.HarmonicRoughnessPenalty(period=7), RNG.normal(size=(7, 3))),
    (pen.QuadraticPenalty(S=ROUGHNESS), RNG.normal(size=(4, 2))),
]
NAMES = [case[0].KIND_TAG for case in CASES]
every = pytest.mark.parametrize(("penalty", "target"), CASES, ids=NAMES)


def test_every_registered_kind_is_tested():
    assert set(NAMES) == set(pen.registered_kinds())


@every
def test_derivatives(penalty, target):
    report = pen.check_penalty(penalty, target, 0.3 * np.ones(penalty.rho_count()))
    assert report.passed, str(report)


def test_the_check_can_fail():
    class Wrong(pen.ARDPenalty):
        def row_gradient(self, target, rho):
            return 1.001 * super().row_gradient(target, rho)

    report = pen.check_penalty(Wrong(latent_dim=1), RNG.normal(size=(4, 1)), np.zeros(1))
    assert not report.passed
    assert "FAIL" in str(report)


@every
def test_configuration_round_trip(penalty, target):
    config = penalty.to_config()
    assert config["kind"] == penalty.KIND_TAG
    assert pen.from_config(config) == penalty


@every
def test_manifest(penalty, target):
    assert pen.get(penalty.KIND_TAG) is type(penalty)
    assert type(penalty).__name__ == penalty.PYTHON_WRAPPER
    assert isinstance(penalty.tier(), pen.PenaltyTier)
    assert isinstance(penalty.ROW_BLOCK_DIAGONAL, bool)


@every
def test_not_learnable_has_no_rho(penalty, target):
    fixed = pen.from_config({**penalty.to_config(), "learnable": False})
    assert fixed.rho_count() == 0
    unit = penalty.value(target, np.zeros(penalty.rho_count()))
    assert fixed.value(target, np.zeros(0)) == pytest.approx(unit, rel=1e-12)


@every
def test_wrong_rho(penalty, target):
    with pytest.raises(InputError, match="rho"):
        penalty.value(target, np.zeros(penalty.rho_count() + 1))


def test_unknown_kind_names_the_near_ones():
    with pytest.raises(RegistryError, match=r"penalty\.kind.*'ard'"):
        pen.from_config({"kind": "adr"})


def test_unknown_key_names_its_path():
    with pytest.raises(RegistryError, match=r"penalty\.latnt_dim.*latent_dim"):
        pen.from_config({"kind": "ard", "latnt_dim": 2})


def test_a_kind_cannot_be_taken_twice():
    with pytest.raises(RegistryError, match="already taken"):
        pen.register(type("Other", (pen.ARDPenalty,), {}))


@pytest.mark.parametrize(("schedule", "expected"), [
    ({"kind": "geometric", "w_start": 0.1, "w_end": 1.0, "rate": 0.5}, [0.1, 0.55, 0.775]),
    ({"kind": "linear", "w_start": 0.0, "w_end": 1.0, "steps": 2}, [0.0, 0.5, 1.0, 1.0]),
    ({"kind": "reciprocal_iter", "w_start": 3.0, "w_end": 1.0}, [3.0, 2.0, 1.0 + 2.0 / 3.0]),
])
def test_schedules(schedule, expected):
    path = pen.ScalarWeightSchedule.from_config(schedule)
    assert [path.weight_at(i) for i in range(len(expected))] == pytest.approx(expected)
    assert pen.ScalarWeightSchedule.from_config(path.to_config()) == path
    penalty = pen.ARDPenalty(latent_dim=1, weight_schedule=schedule)
    assert penalty.apply_schedule(1).weight == pytest.approx(expected[1])
    assert penalty.settled() == pen.ARDPenalty(latent_dim=1, weight=schedule["w_end"])


def test_temperature_never_falls_below_its_floor():
    path = pen.ScalarWeightSchedule(w_start=2.0, w_end=0.0, kind="linear", steps=4)
    cooling = pen.TemperatureSchedule(path, tau_min=0.3)
    assert [cooling.temperature_at(i) for i in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.3])
