"""Fit three planted circles and compare what was found with the truth."""

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles

data = planted_circles(300, 12, 3, noise_sd=0.05)
model = rs.SAEManifold(n_atoms=3, topology="circle", verbose=1).fit(data.Z)
print(model.summary())

codes = model.encode(data.Z[:5])
print("\nfirst rows: atom and angle in degrees")
for row, k in enumerate(codes.assignments.argmax(axis=1)):
    print(f"  row {row}: atom {k} at {np.degrees(codes.coordinates[k][row, 0]):7.1f}")
