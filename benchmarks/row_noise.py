"""Planted circles of which 1 % of the rows have an extreme norm, by noise with a scale a row.

`python benchmarks/row_noise.py --seeds 3 > out.txt`. Three circles of radius 1 in 16 columns with
noise of standard deviation .1; one row of the table a number of rows, an assignment and a kind of
extreme rows, which are at 10 or 100 times the norm of their planted row ("scaled"), in a random
direction ("anywhere"), or all in one direction, as attention sinks are ("sink"):

- conv: seeds that converge, of those run.
- purity: lowest share of the other rows with the planted atom.
- named: seeds in which the rows that the check names are the extreme ones.
- nu: median degrees of freedom.
- seconds, clean: median CPU seconds, and those of the same fit without the extreme rows.
"""

import argparse
import time
import warnings

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles, recovery_scores

K, P, NOISE_SD = 3, 16, 0.1
CASES = [(n, assignment, kind, times)
         for n in (120, 300, 1000) for assignment in ("softmax", "topk")
         for kind, times in (("scaled", 10.0), ("scaled", 100.0), ("anywhere", 100.0),
                             ("sink", 100.0))]


def spoil(Z, rows, kind, times, rng):
    out = Z.copy()
    if kind == "scaled":
        out[rows] *= times
    else:
        size = len(rows) if kind == "anywhere" else 1
        directions = rng.normal(size=(size, Z.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        out[rows] += times * directions
    return out


def fit(Z, assignment):
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = rs.SAEManifold(n_atoms=K, assignment=assignment, row_noise="student_t").fit(Z)
    return model, time.process_time() - begun


def run(case, seed):
    n, assignment, kind, times = case
    data = planted_circles(n, P, K, noise_sd=NOISE_SD, random_state=seed)
    rng = np.random.default_rng(1000 + seed)
    rows = rng.choice(n, max(1, n // 100), replace=False)
    others = np.setdiff1d(np.arange(n), rows)
    model, seconds = fit(spoil(data.Z, rows, kind, times, rng), assignment)
    clean = fit(data.Z[others], assignment)[1]
    codes = model.codes_
    scores = recovery_scores(data.rows(others), codes[others],
                             [atom.topology for atom in model.atoms_])
    named = next(check.rows for check in model.diagnostics_.checks
                 if check.name == "rows not described")
    return (model.converged_, scores.assignment_accuracy, sorted(named) == sorted(rows.tolist()),
            model.df_, seconds, clean)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[120, 300, 1000])
    options = parser.parse_args()
    print(f"{'rows':>5} {'assignment':10} {'extreme rows':14} {'conv':>5} {'purity':>7} "
          f"{'named':>6} {'nu':>6} {'seconds':>8} {'clean':>6}")
    for case in (case for case in CASES if case[0] in options.rows):
        n, assignment, kind, times = case
        conv, purity, named, nu, seconds, clean = np.array(
            [run(case, seed) for seed in range(options.seeds)], float).T
        print(f"{n:5d} {assignment:10} {kind:8} x{times:<4g} {conv.sum():3.0f}/{len(conv)} "
              f"{purity.min():7.4f} {named.sum():4.0f}/{len(conv)} {np.median(nu):6.2f} "
              f"{np.median(seconds):8.1f} {np.median(clean):6.1f}", flush=True)


if __name__ == "__main__":
    main()
