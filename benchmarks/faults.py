"""Broken on purpose: what comes of rows and parameters that a fit should not meet.

matrices: rows that no fit is for, under several options: the outcome, its first words, seconds.
parameters: values that are none: the error's name and message.
noise: Gaussian rows without structure as one circle, as four, and with the number of atoms open:
how many converge, the range of the edf over the number of coefficients, bands over the data.

Kills and interrupts are in `stops.py`.

    python benchmarks/faults.py --seeds 24 > benchmarks/results/faults.txt
"""

import argparse
import time
import warnings

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles

OPTIONS = {
    "circle": {"n_atoms": 1},
    "2 circles": {"n_atoms": 2},
    "2 circles, topk": {"n_atoms": 2, "assignment": "topk"},
    "3 points": {"n_atoms": 3, "topology": "point"},
    "auto": {"n_atoms": "auto"},
    "auto shape": {"n_atoms": 1, "topology": "auto"},
    "student_t rows": {"n_atoms": 1, "row_noise": "student_t"},
}
MOST_SECONDS = 10.0
WORDS = 96


def matrices():
    """Name and rows of every case."""
    rng = np.random.default_rng(0)
    centres, Z = rng.normal(size=(3, 5)), planted_circles(80, 6, 1).Z
    column, apart = np.zeros((80, 6)), Z.copy()
    column[:, 2], apart[3] = rng.normal(size=80), 1e6
    alone, huge = np.zeros((80, 6)), Z.copy()
    alone[3], huge[3, 2] = 1e6, 1e155
    return {
        "3 clusters, no noise": centres[np.arange(60) % 3],
        "2 distinct rows": centres[np.arange(60) % 2],
        "1 column": rng.normal(size=(100, 1)),
        "1 column, 2 values": (np.arange(60) % 2.0)[:, None],
        "1 column varies": column,
        "rows on a line": np.outer(np.arange(80.0), centres[0]),
        "1 row at 1e6": apart,
        "1 row at 1e6, others equal": alone,
        "1 entry at 1e155": huge,
        "scale 1e-170": 1e-170 * Z,
        "offset 1e8": Z + 1e8,
        "offset 1e12": Z + 1e12,
        "offset 1e14": Z + 1e14,
        "masked": np.ma.masked_greater(Z, 0.5),
    }


PARAMETERS = {
    "random_state": [np.random.RandomState(0), -1, "x", True],
    "demote": ["no", 1],
    "callbacks": [print, "print", [5]],
    "topology": [{"topology": "circle", "n_harm": 2}, {"topology": "linear", "dim": 2}],
    "family": [{"family": "student_t", "dof": 2}],
    "row_noise": [{"row_noise": "student_t", "dof": 2}],
    "noise": [{"kind": "factor", "rnk": 2}],
    "assignment": [{"assignment": "topk", "k": 2}],
    "max_time": [np.inf, "1"],
}


def tried(Z, **options):
    """Outcome, message and seconds of a fit."""
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = rs.SAEManifold(**options).fit(Z)
        except Exception as error:  # whatever comes is what is to be shown
            return type(error).__name__, str(error), time.perf_counter() - begun
    outcome = "converged" if model.converged_ else "not converged"
    words = "; ".join(str(item.message) for item in said) or model.message_
    return outcome, f"V {model.criterion_:.1f}, edf {model.edf_:.1f}: {words}", (
        time.perf_counter() - begun)


def show_matrices():
    print(f"{'rows':<28}{'options':<18}{'outcome':<15}{'s':>5}  message")
    for name, Z in matrices().items():
        for option, parameters in OPTIONS.items():
            outcome, words, seconds = tried(Z, max_time=MOST_SECONDS, **parameters)
            print(f"{name:<28}{option:<18}{outcome:<15}{seconds:5.1f}  {words[:WORDS]}",
                  flush=True)


def show_parameters():
    print(f"\n{'parameter':<14}{'value':<46}{'outcome':<15}  message")
    Z = planted_circles(40, 4, 1).Z
    for name, values in PARAMETERS.items():
        for value in values:
            outcome, words, _ = tried(Z, **{"n_atoms": 1, "max_outer": 3, name: value})
            print(f"{name:<14}{str(value)[:44]:<46}{outcome:<15}  {words[:WORDS]}", flush=True)


def show_noise(seeds):
    print(f"\n{'Gaussian rows':<24}{'fits':>5}{'conv':>5}{'edf / coefficients':>22}"
          f"{'band / data':>12}{'named':>7}{'s, worst':>10}")
    cases = {"as one circle": ({"n_atoms": 1}, seeds), "as four": ({"n_atoms": 4}, seeds // 8),
             "atoms open": ({"n_atoms": "auto"}, seeds // 4)}
    for name, (options, n) in cases.items():
        ended, shares, bands, times, named = 0, [], [], [], 0
        for seed in range(n):
            rng = np.random.default_rng(seed)
            Z = rng.normal(size=(rng.integers(60, 301), rng.integers(3, 13)))
            begun = time.perf_counter()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                model = rs.SAEManifold(**options).fit(Z)
            times.append(time.perf_counter() - begun)
            ended += model.converged_
            named += any("no better than a flat" in str(item.message)
                         or "explain nothing" in str(item.message)
                         or "no atom is left" in str(item.message) for item in said)
            for atom in model.atoms_:
                shares.append(atom.edf / atom.coefficients.size)
                if atom.topology.latent_dim:
                    low, high = atom.band(np.linspace(-np.pi, np.pi, 50))
                    bands.append((high - low).max() / np.ptp(Z))
        print(f"{name:<24}{n:5d}{ended:5d}{min(shares):11.3f} to {max(shares):.3f}  "
              f"{max(bands, default=np.nan):12.2f}{named:7d}{max(times):10.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=40, help="rows of noise")
    options = parser.parse_args()
    show_matrices()
    show_parameters()
    show_noise(options.seeds)


if __name__ == "__main__":
    main()
