"""Schedules of every kind whose first steps are small, or that need many."""

SLOW = [
    {"kind": "geometric", "w_start": 10.0, "w_end": 1.0, "rate": 0.9},
    {"kind": "geometric", "w_start": 1.001, "w_end": 1.0, "rate": 0.999},
    {"kind": "geometric", "w_start": 1e-3, "w_end": 1.0, "rate": 0.93},
    {"kind": "geometric", "w_start": 2.0, "w_end": 0.0, "rate": 0.95},
    {"kind": "linear", "w_start": 100.0, "w_end": 99.0, "steps": 40},
    {"kind": "linear", "w_start": 10.0, "w_end": 1.0, "steps": 90},
    {"kind": "linear", "w_start": 0.0, "w_end": 1.0, "steps": 50},
    {"kind": "reciprocal_iter", "w_start": 2.0, "w_end": 1.0},
    {"kind": "reciprocal_iter", "w_start": 0.5, "w_end": 1.0},
    {"kind": "reciprocal_iter", "w_start": 1.0, "w_end": 0.0},
]
