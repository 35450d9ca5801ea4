"""Days of the year in a sentence encoder: where they sit on a fitted circle."""

import numpy as np

import reml_sae as rs
from reml_sae.datasets import load_dates
from reml_sae.diagnostics import align_angles, circular_correlation

dates = load_dates()
model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(n_harmonics=6), verbose=1)
codes = model.fit(dates.Z).codes_
print(model.summary())
angles = align_angles(codes.coordinates[0][:, 0], dates.phase)
print(f"\ncircular correlation with the calendar: {circular_correlation(angles, dates.phase):.3f}")
month = (dates.labels // 30.42).astype(int)
for m in range(12):
    mean = np.angle(np.exp(1j * angles[month == m]).mean())
    print(f"  month {m + 1:2d}: {np.degrees(mean) % 360:5.1f} degrees")
