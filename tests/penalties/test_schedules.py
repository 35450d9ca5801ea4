"""Schedules of weights and of the temperature: their formulas, and that every one ends."""

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties._schedule import END_TOLERANCE, MAX_ITERATIONS, PARAMETERS
from tests.penalties.slow_schedules import SLOW

slow = pytest.mark.parametrize("config", SLOW, ids=lambda config: " ".join(map(str, (
    config["kind"], config["w_start"], "to", config["w_end"]))))


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


def test_every_kind_has_slow_cases():
    assert {config["kind"] for config in SLOW} == set(PARAMETERS)


@slow
def test_a_schedule_goes_all_the_way_however_slowly_it_starts(config):
    path = pen.ScalarWeightSchedule(**config)
    weights = np.array([path.weight_at(i) for i in range(path.end + 1)])
    assert weights[0] == pytest.approx(config["w_start"], rel=1e-12)
    assert weights[-1] == config["w_end"]
    assert path.end <= MAX_ITERATIONS
    assert path.weight_at(path.end + 1) == path.weight_at(10 * MAX_ITERATIONS) == config["w_end"]
    steps = np.diff(weights) * np.sign(config["w_end"] - config["w_start"])
    assert (steps >= 0.0).all()
    # the last step is what the formula leaves one iteration before it is within the tolerance
    reference = config["w_end"] or config["w_start"]
    left = abs(weights[-2] - config["w_end"])
    own = abs(config["w_end"] - config["w_start"]) / config.get("steps", np.inf)
    last = 2.0 * END_TOLERANCE * reference
    assert left <= max(last, 1.000001 * own)
    assert (np.abs(weights[:-1] - config["w_end"]) > 0.0).all()


@slow
def test_a_penalty_follows_its_schedule_to_the_end(config):
    penalty = pen.OrthogonalityPenalty(latent_dim=2, weight_schedule=config)
    end = penalty.weight_schedule.end
    assert penalty.apply_schedule(end).weight == penalty.settled().weight == config["w_end"]
    assert penalty.apply_schedule(0).weight == pytest.approx(config["w_start"], rel=1e-12)


@pytest.mark.parametrize(("config", "field", "needed"), [
    ({"kind": "geometric", "w_start": 10.0, "w_end": 1.0, "rate": 0.9999}, "rate=0.9999", "68021"),
    ({"kind": "geometric", "w_start": 0.0, "w_end": 1.0, "rate": 0.996}, "rate=0.996", "1149"),
    ({"kind": "geometric", "w_start": 1.0, "w_end": 0.0, "rate": 1.0 - 1e-15}, "rate=", "e+15"),
    ({"kind": "linear", "w_start": 0.0, "w_end": 1.0, "steps": 1001}, "steps must be", "1001"),
    ({"kind": "reciprocal_iter", "w_start": 1000.0, "w_end": 1.0}, "w_start=1000", "99899"),
    ({"kind": "reciprocal_iter", "w_start": 1e300, "w_end": 1e-300}, "w_start=1e", "e+304"),
])
def test_a_schedule_without_end_is_refused_with_its_length(config, field, needed):
    with pytest.raises(InputError) as caught:
        pen.ScalarWeightSchedule(**config)
    message = str(caught.value)
    assert message.startswith(field)
    assert needed in message and str(MAX_ITERATIONS) in message
    with pytest.raises(RegistryError, match=rf"^p\.weight_schedule\.{field}"):
        pen.from_config({"kind": "ard", "latent_dim": 1, "weight_schedule": config}, path="p")


def test_the_rate_that_the_message_names_is_accepted():
    config = {"kind": "geometric", "w_start": 7.0, "w_end": 1.3}
    with pytest.raises(InputError) as caught:
        pen.ScalarWeightSchedule(**config, rate=0.9999)
    named = float(str(caught.value).split("choose at most ")[1])
    assert 0.99 < named < 1.0
    assert pen.ScalarWeightSchedule(**config, rate=named).end <= MAX_ITERATIONS


def test_a_start_at_zero_is_a_small_weight_where_zero_has_no_meaning():
    config = {"kind": "linear", "w_start": 0.0, "w_end": 2.0, "steps": 2}
    assert pen.ARDPenalty(latent_dim=1, weight_schedule=config).apply_schedule(0).weight == 2e-12
    entropy = pen.SoftmaxAssignmentSparsityPenalty(3, 1.0, weight_schedule=config)
    assert entropy.apply_schedule(0).weight == 0.0


def test_temperature_never_falls_below_its_floor():
    path = pen.ScalarWeightSchedule(w_start=2.0, w_end=0.0, kind="linear", steps=4)
    cooling = pen.TemperatureSchedule(path, tau_min=0.3)
    assert [cooling.temperature_at(i) for i in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.3])
