"""Coverage of 95 % bands and bias of what REML finds, in simulations of mixed and additive models.

Smooths: a P-spline (cubic B-splines, second differences) through noisy, count and binary data;
coverage over the grid of the band at fixed strength and of the one that has its uncertainty (Wood,
Pya and Saefken 2016). Random effects: intercepts and slopes of 30 groups; mean of the estimated
standard deviations over the planted ones, and coverage of the fixed effects. Planted strengths: the
smooth is drawn from its own prior, so that log lambda is known.
"""

import warnings

import numpy as np
from scipy.interpolate import BSpline

import reml_sae as rs
from reml_sae.engine.criterion import rho_differences
from reml_sae.families import get_family
from reml_sae.models import MixedModel, Smooth, corrected_covariance, mixed_summary

SEEDS, N, K = 100, 200, 20
GRID = np.linspace(0.0, 1.0, 101)


def basis(x):
    knots = np.linspace(0.0, 1.0, K - 2)
    knots = np.concatenate([knots[0] - (knots[1] - knots[0]) * np.arange(3, 0, -1), knots,
                            knots[-1] + (knots[1] - knots[0]) * np.arange(1, 4)])
    return BSpline.design_matrix(x, knots, 3).toarray()


def difference_penalty():
    D = np.diff(np.eye(K), 2, axis=0)
    return D.T @ D


def smooth_model(x, y, family):
    return MixedModel(y, basis(x), family=family, penalties=[
        Smooth(slice(0, K), [difference_penalty()])])


def coverage(family, psi, truth, n):
    plain, corrected, converged = [], [], 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        x = rng.random(n)
        y = get_family(family).sample(rng, truth(x), np.array(psi))
        model = smooth_model(x, y, family)
        fit = rs.fit_reml(model)
        converged += fit.converged
        X = basis(GRID)
        centre = X @ model.coefficients(fit.theta, fit.rho)
        fixed = rs.models.posterior_covariance(model, fit)
        differences = rho_differences(model, fit.rho, theta=fit.theta)
        for out, V in ((plain, fixed),
                       (corrected, corrected_covariance(model, fit, differences))):
            half = 1.96 * np.sqrt(np.einsum("gp,pq,gq->g", X, V, X))
            out.append(np.mean(np.abs(truth(GRID) - centre) <= half))
    return converged, np.mean(plain), np.mean(corrected), np.std(corrected) / np.sqrt(SEEDS)


def planted_strength(log_strength):
    """Estimated over planted prior variance 1 / lambda: mean, its standard error; median log."""
    found = []
    values, vectors = np.linalg.eigh(difference_penalty())
    steep = values > 1e-10
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        x = rng.random(N)
        b = vectors[:, steep] @ (rng.normal(size=steep.sum()) / np.sqrt(
            values[steep] * np.exp(log_strength)))
        y = basis(x) @ b + 0.3 * rng.normal(size=N)
        found.append(rs.fit_reml(smooth_model(x, y, "gaussian")).rho[0])
    ratio = np.exp(log_strength - np.array(found))
    return np.mean(ratio), np.std(ratio) / np.sqrt(SEEDS), np.median(found)


def random_effects(family, psi):
    groups = np.repeat(np.arange(30), 10)
    planted = np.array([0.8, 0.4])
    beta = np.array([0.5, -0.3])
    sds, covered, converged = [], [], 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        X = np.column_stack([np.ones(len(groups)), rng.normal(size=len(groups))])
        b = planted * rng.normal(size=(30, 2))
        eta = X @ beta + np.einsum("nq,nq->n", X, b[groups])
        y = get_family(family).sample(rng, eta, np.array(psi))
        model = MixedModel(y, X, groups=groups, Z=X, family=family)
        fit = rs.fit_reml(model)
        converged += fit.converged
        summary = mixed_summary(model, fit)
        sds.append(summary.variance_components[0].sds)
        covered.append(np.abs(summary.coefficients - beta) <= 1.96 * summary.standard_errors)
    ratio = np.array(sds) / planted
    return (converged, ratio.mean(axis=0), ratio.std(axis=0) / np.sqrt(SEEDS),
            np.mean(covered, axis=0))


def main():
    warnings.simplefilter("ignore")
    print(f"{SEEDS} seeds\n\nP-spline of {K} coefficients: coverage of 95 % bands")
    print("family         n  converged   fixed strength   with its uncertainty (standard error)")

    def wave(x):
        return np.sin(2.0 * np.pi * x) + 0.5 * np.cos(6.0 * np.pi * x)

    for family, psi, truth, n in (("gaussian", [np.log(0.09)], wave, N),
                                  ("gaussian", [0.0], wave, N),
                                  ("poisson", [], lambda x: 1.0 + wave(x), N),
                                  ("binomial", [], lambda x: 2.0 * wave(x), N),
                                  ("binomial", [], lambda x: 2.0 * wave(x), 4 * N)):
        converged, plain, corrected, error = coverage(family, psi, truth, n)
        print(f"{family:<12}{n:4d} {converged:5d}/{SEEDS} {plain:14.3f} {corrected:18.3f} "
              f"({error:.3f})",
              flush=True)
    print("\nsmooth drawn from its prior: planted log lambda, estimated / planted variance "
          "1 / lambda (standard error), median estimated log lambda")
    for log_strength in (0.0, 2.0, 4.0):
        mean, error, median = planted_strength(log_strength)
        print(f"{log_strength:6.1f} {mean:10.3f} ({error:.3f}) {median:8.3f}", flush=True)
    print("\n30 groups of 10, random intercept and slope: estimated sd / planted (standard "
          "error), coverage of the fixed effects")
    for family, psi in (("gaussian", [0.0]), ("poisson", []), ("binomial", [])):
        converged, mean, error, covered = random_effects(family, psi)
        print(f"{family:<12}{converged:5d}/{SEEDS}   {mean[0]:.3f} ({error[0]:.3f})  "
              f"{mean[1]:.3f} ({error[1]:.3f})   {covered[0]:.2f} {covered[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
