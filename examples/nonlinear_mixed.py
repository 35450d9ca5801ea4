"""A drug's concentration in 20 subjects: a nonlinear mixed model from one formula."""

import numpy as np

import reml_sae as rs
from reml_sae.models import Curve, NonlinearMixedModel, mixed_summary

rng = np.random.default_rng(0)
hours = np.tile([0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 12.0, 24.0], 20)
subject = np.repeat(np.arange(20), 8)
dose = 5.0


def concentration(log_absorption, log_elimination, log_clearance):
    ka, ke = np.exp(log_absorption), np.exp(log_elimination)
    size = dose * ka * ke / (np.exp(log_clearance) * (ka - ke))
    return size * (np.exp(-ke * hours) - np.exp(-ka * hours))


mean = Curve(concentration)
truth = np.array([0.5, -2.4, -3.2]) + rng.normal(size=(20, 3)) * [0.6, 0.0, 0.2]
y = mean(truth[subject], 0)[0] + 0.4 * rng.normal(size=160)

model = NonlinearMixedModel(
    y, mean, subject, random=["log_absorption", "log_clearance"], covariance="full",
    start={"log_absorption": 0.0, "log_elimination": -2.0, "log_clearance": -3.0})
fit = rs.fit_reml(model, curvature="exact")
print(mixed_summary(model, fit))
