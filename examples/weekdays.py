"""Seven weekdays in a sentence encoder: the circle on which they lie, drawn in its own plane."""

import matplotlib.pyplot as plt
import numpy as np

import reml_sae as rs
from reml_sae.datasets import load_weekdays
from reml_sae.datasets.calendar import WEEKDAYS

days = load_weekdays()
model = rs.SAEManifold(n_atoms=1, topology="circle", verbose=1).fit(days.Z)
print(model.summary())

atom = model.atoms_[0]
t = np.linspace(-np.pi, np.pi, 400)[:, None]
curve = atom.curve(t)
center = curve.mean(axis=0)
plane = np.linalg.svd(curve - center, full_matrices=False)[2][:2].T
line, rows = (curve - center) @ plane, (days.Z - center) @ plane

figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
axes.plot(*line.T, color="0.4", zorder=1)
for day, name in enumerate(WEEKDAYS):
    these = rows[days.labels == day]
    axes.scatter(*these.T, s=18, color=plt.colormaps["twilight_shifted"](0.1 + 0.8 * day / 7))
    axes.annotate(name, 1.6 * these.mean(axis=0), ha="center", va="center")
axes.set_aspect("equal")
axes.margins(0.3, 0.1)
axes.set_axis_off()
axes.set_title("140 sentences, 384 columns, in the plane of the fitted circle", fontsize=10)
figure.savefig("weekdays.png", dpi=100)
