"""Fits of many atoms: seconds, memory, V and accuracy, by blocks of atoms and by the dense engine.

`python benchmarks/large.py [--cases small paper ..] [--seeds 1] [--limit 900] > out.txt`

Every fit runs in a process of its own, on one thread, from planted rows to a model with codes and
diagnostics; the noise is isotropic. "block" is what `SAEManifold` does; "dense" has the engine that
knows nothing of which atoms rows use (it is run where a case says so). s is the atoms that each row
uses. MB is the peak of the process, the interpreter and the data included.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import time
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.models.sae import model, rows


@dataclass(frozen=True)
class Case:
    """K circles of radius 1 and noise .05, s of them in each of N rows of p columns."""

    K: int
    N: int
    p: int
    s: int = 1
    dense: bool = False


CASES = {
    "small": [Case(2, 400, 8, dense=True), Case(4, 800, 16, dense=True)],
    "issue": [Case(8, 2000, 64, dense=True), Case(16, 1600, 32, dense=True),
              Case(32, 4000, 16, dense=False)],
    "rows": [Case(8, n, 64) for n in (2000, 4000, 8000, 16000)],
    "atoms": [Case(k, 125 * k, 64) for k in (8, 16, 32, 64)],
    "columns": [Case(8, 2000, p) for p in (16, 64, 256, 768)],
    "several": [Case(8, 800, 16, s=2), Case(8, 800, 16, s=3), Case(16, 1600, 32, s=2)],
}


def accuracy(fitted: rs.SAEManifold, support: np.ndarray) -> float:
    """Share of the planted atoms of rows that the fitted ones hold, atoms matched one to one."""
    gates = fitted.codes_.gates if support.sum(axis=1).max() > 1 else (
        np.eye(len(fitted.atoms_), dtype=bool)[fitted.codes_.assignments.argmax(axis=1)])
    table = gates.astype(float).T @ support
    found, planted = linear_sum_assignment(-table)
    return float(table[found, planted].sum() / support.sum())


def fit(case: Case, seed: int, dense: bool, limit: float, out: multiprocessing.Queue) -> None:
    """One row of the table."""
    if dense:
        for module in (model, rows):
            module.kinds_of = lambda structure: []
    data = planted_circles(case.N, case.p, case.K, n_active=case.s, noise_sd=0.05,
                           orthogonal=case.p >= 2 * case.K, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cpu, wall = time.process_time(), time.perf_counter()
        fitted = rs.SAEManifold(n_atoms=case.K, assignment="topk", n_active=case.s,
                                noise="isotropic", max_time=limit).fit(data.Z)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    out.put((cpu, wall, memory, fitted.criterion_, fitted.converged_,
             accuracy(fitted, data.support), fitted.score(data.Z) - data.explained_variance))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["small", "issue"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a fit may take")
    options = parser.parse_args()
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {os.cpu_count()} cores, one used; numpy {np.__version__}")
    print("   K      N    p  s  engine seed   CPU s  wall s     MB               V  conv accuracy "
          "EV - planted")
    context = multiprocessing.get_context("spawn")
    for case in (case for name in options.cases for case in CASES[name]):
        for seed in range(options.seeds):
            for dense in (False, True) if case.dense else (False,):
                out = context.Queue()
                worker = context.Process(target=fit, args=(case, seed, dense, options.limit, out))
                worker.start()
                cpu, wall, memory, V, converged, right, gap = out.get()
                worker.join()
                print(f"{case.K:4d} {case.N:6d} {case.p:4d} {case.s:2d} "
                      f"{'dense' if dense else 'block':>7} {seed:4d} {cpu:7.1f} {wall:7.1f} "
                      f"{memory:6.0f} {V:15.4f} {converged!s:>5} {right:8.4f} {gap:12.4f}",
                      flush=True)


if __name__ == "__main__":
    main()
