"""A linear mixed model and a smooth of counts, with the engine that fits SAE-manifolds."""

import numpy as np
from scipy.interpolate import BSpline

import reml_sae as rs
from reml_sae.models import MixedModel, Smooth, mixed_summary, predict

rng = np.random.default_rng(4)

# random intercept and slope, correlated: lme4's  y ~ day + (day | subject)
subject, day = np.repeat(np.arange(20), 10), np.tile(np.arange(10.0), 20)
effects = rng.normal(size=(20, 2)) * [24.0, 6.0]
y = 250.0 + 10.0 * day + effects[subject, 0] + effects[subject, 1] * day
y += 25.0 * rng.normal(size=len(y))
X = np.column_stack([np.ones_like(day), day])
model = MixedModel(y, X, groups=subject, Z=X, covariance="full", x_names=["intercept", "day"])
print(mixed_summary(model, rs.fit_reml(model)), "\n")

# a P-spline of counts: mgcv's  gam(y ~ s(x, bs = "ps"), family = poisson, method = "REML")
x = np.sort(rng.random(300))
knots = np.arange(-3, 24) / 20.0
B = BSpline.design_matrix(x, knots, 3).toarray()
D = np.diff(np.eye(B.shape[1]), 2, axis=0)
counts = rng.poisson(np.exp(1.0 + np.sin(2.0 * np.pi * x)))
model = MixedModel(counts, B, family="poisson", penalties=[Smooth(slice(None), [D.T @ D])])
fit = rs.fit_reml(model)
low, high = predict(model, fit, B).band()
inside = np.mean((low <= 1.0 + np.sin(2.0 * np.pi * x)) & (1.0 + np.sin(2.0 * np.pi * x) <= high))
print(f"edf {fit.edf:.2f}; the 95 % band holds {inside:.0%} of the planted curve")
