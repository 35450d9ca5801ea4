"""Planted problems of other kinds: crossing planes, offsets, noise, mixed shapes, mixed rows."""

import time
import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_mixed_rows, planted_mixture

PROBLEMS = {
    "3 circles, random planes, p = 6": (3, "circle", lambda s: planted_circles(
        600, 6, 3, orthogonal=False, random_state=s)),
    "3 circles with offsets": (3, "circle", lambda s: planted_circles(
        600, 16, 3, offset=2.0, random_state=s)),
    "2 circles, noise .3": (2, "circle", lambda s: planted_circles(
        600, 16, 2, noise_sd=0.3, random_state=s)),
    "circle, line and plane": (3, ["circle", "linear", "plane"], lambda s: planted_mixture(
        600, 12, ["circle", "linear", "plane"], offset=1.0, random_state=s)),
    "2 crossing lines": (2, "linear", lambda s: planted_mixture(
        600, 12, ["linear", "linear"], random_state=s)),
    "rows that mix 2 circles": (2, "circle", lambda s: planted_mixed_rows(
        600, 12, random_state=s)),
}


def main():
    print(f"{'problem':<34} seed conv accuracy signal-MSE/sd^2 noise-sd/truth  seconds")
    for name, (k, topology, plant) in PROBLEMS.items():
        for seed in range(3):
            data = plant(seed)
            begun = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = rs.SAEManifold(n_atoms=k, topology=topology).fit(data.Z)
            seconds = time.perf_counter() - begun
            table = np.zeros((k, k))
            np.add.at(table, (model.codes_.assignments.argmax(1), data.labels), 1)
            accuracy = table[linear_sum_assignment(-table)].sum() / len(data.Z)
            error = ((model.predict(data.Z) - data.signal) ** 2).mean() / data.noise_sd**2
            print(f"{name:<34} {seed:4d} {model.converged_!s:>4} {accuracy:8.4f} {error:15.3f} "
                  f"{np.sqrt(model.dispersion_) / data.noise_sd:14.3f} {seconds:8.2f}", flush=True)


if __name__ == "__main__":
    main()
