"""Schedules of weights and of the temperature."""

import pytest

from reml_sae import penalties as pen


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
