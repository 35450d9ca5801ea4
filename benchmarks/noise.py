"""Planted atoms in noise with a covariance: kind of the noise, its rank, and what is found in it.

`python benchmarks/noise.py --seeds 10 --budget 1800 > out.txt`. Circles and spheres of radius 1 and
planes of that size, noise of standard deviation .2 in the geometric mean, in 12 columns; one row a
case and a kind of noise of the fit:

- conv: seeds that converge, of those run.
- kind: seeds whose noise is of the planted kind; "auto" is right where it names that.
- rank: those with the planted number of factors, where factors were planted.
- acc: lowest share of rows with the right atom.
- coord, oracle: median coordinate error of the worst atom after the best gauge change, and that of
  who knows every atom, every label and the covariance of the noise: the mode in its metric.
- V: median, less that of the fit with isotropic noise.
- seconds: median CPU seconds.

The cases named "nothing" have no atom at all: a fit is right there if no curved atom is better than
its flat twin.
"""

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np

import reml_sae as rs
from reml_sae.datasets import Planted, planted_mixture, recovery_scores

NOISE_SD, COLUMNS = 0.2, 12
FACTORS = {1: (2.5,), 3: (3.0, 2.0, 1.5), 5: (3.0, 2.5, 2.0, 1.5, 1.5)}


@dataclass(frozen=True)
class Case:
    """What is planted, in which noise, and how it is fitted."""

    shapes: tuple[str, ...]
    noise: str
    rank: int = 0
    assignment: str = "softmax"
    n_rows: int = 400

    @property
    def label(self) -> str:
        atoms = f"{len(self.shapes)} {self.shapes[0]}" if self.shapes else "nothing"
        return f"{atoms}, {self.assignment}, {self.noise}{self.rank or ''}"


CASES = [
    Case(("circle",), "isotropic"), Case(("circle",), "diagonal"),
    *(Case(("circle",), "factor", rank) for rank in FACTORS),
    *(Case(("circle",) * k, "factor", 3, assignment, 300 * k)
      for k in (2, 4) for assignment in ("softmax", "topk")),
    Case(("circle",) * 2, "diagonal", n_rows=600),
    Case(("circle",) * 2, "isotropic", n_rows=600),
    Case(("sphere",), "factor", 3), Case(("plane",), "factor", 1), Case(("plane",), "isotropic"),
    *(Case((), noise, rank) for noise, rank in (("isotropic", 0), ("diagonal", 0), ("factor", 3))),
]


def covariance(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Of the noise, (p, p)."""
    if case.noise == "diagonal":
        logs = rng.permutation(np.linspace(-0.5, 0.5, COLUMNS) * np.log(100.0))
        return NOISE_SD**2 * np.diag(np.exp(logs))
    out = NOISE_SD**2 * np.eye(COLUMNS)
    if case.rank:
        frame = np.linalg.qr(rng.normal(size=(COLUMNS, case.rank)))[0]
        out += (frame * np.square(FACTORS[case.rank])) @ frame.T
    return out


def planted(case: Case, seed: int) -> tuple[Planted | None, np.ndarray, np.ndarray]:
    """What is planted, the rows, and the covariance of their noise."""
    rng = np.random.default_rng(10_000 + seed)
    cov = covariance(case, rng)
    noise = rng.multivariate_normal(np.zeros(COLUMNS), cov, case.n_rows)
    if not case.shapes:
        return None, noise, cov
    data = planted_mixture(case.n_rows, COLUMNS, list(case.shapes), noise_sd=0.0,
                           random_state=seed)
    return data, data.signal + noise, cov


def oracle(data: Planted, rows: np.ndarray, cov: np.ndarray) -> float:
    """Coordinate error of the worst circle from its own frame and the covariance; else NaN."""
    inverse, worst = np.linalg.inv(cov), 0.0
    grid = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    for k, topology in enumerate(data.topologies):
        if topology != "circle":
            return np.nan
        mine = data.labels == k
        curve = np.column_stack([np.cos(grid), np.sin(grid)]) @ data.frames[k]
        pull = rows[mine] @ inverse @ curve.T - 0.5 * np.einsum(
            "gp,pq,gq->g", curve, inverse, curve)
        gap = grid[pull.argmax(axis=1)] - data.coordinates[k][mine, 0]
        worst = max(worst, float(np.sqrt(np.mean(np.angle(np.exp(1j * gap)) ** 2))))
    return worst


def fit(case: Case, rows: np.ndarray, noise: str) -> tuple[rs.SAEManifold, float]:
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        topology = list(case.shapes) or ["circle"]
        model = rs.SAEManifold(n_atoms=len(topology), topology=topology,
                               assignment=case.assignment, noise=noise).fit(rows)
    return model, time.process_time() - begun


def run(case: Case, seed: int, noise: str) -> dict[str, float]:
    data, rows, cov = planted(case, seed)
    model, seconds = fit(case, rows, noise)
    found = {
        "conv": float(model.converged_), "kind": float(model.noise_.kind == case.noise),
        "rank": float(getattr(model.noise_, "rank", 0) == case.rank), "V": model.criterion_,
        "seconds": seconds,
    }
    if data is None:
        return found | {"acc": float(bool(model.search_.flat_twins)), "coord": np.nan,
                        "oracle": np.nan}
    scores = recovery_scores(data, model.codes_, [atom.topology for atom in model.atoms_])
    return found | {"acc": scores.assignment_accuracy,
                    "coord": float(scores.coordinate_error.max()),
                    "oracle": oracle(data, rows, cov)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=np.inf, help="seconds for all of it")
    parser.add_argument("--only", default="", help="cases whose label holds this text")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.label]
    end = time.perf_counter() + options.budget
    print(f"{'case':34} {'noise':10} {'seeds':>5} {'conv':>6} {'kind':>6} {'rank':>6} {'acc':>6} "
          f"{'coord':>7} {'oracle':>7} {'V':>10} {'seconds':>8}")
    for number, case in enumerate(cases):
        stop = time.perf_counter() + (end - time.perf_counter()) / (len(cases) - number)
        table: dict[str, list[dict[str, float]]] = {"isotropic": [], "auto": []}
        for seed in range(options.seeds):
            if time.perf_counter() > stop and seed:
                break
            for noise, found in table.items():
                found.append(run(case, seed, noise))
        base = np.array([row["V"] for row in table["isotropic"]])
        for noise, found in table.items():
            n = len(found)
            total = {key: np.array([row[key] for row in found]) for key in found[0]}
            print(f"{case.label:34} {noise:10} {n:5d} {total['conv'].sum():4.0f}/{n} "
                  f"{total['kind'].sum():4.0f}/{n} {total['rank'].sum():4.0f}/{n} "
                  f"{total['acc'].min():6.4f} {np.median(total['coord']):7.4f} "
                  f"{np.median(total['oracle']):7.4f} {np.median(total['V'] - base):10.1f} "
                  f"{np.median(total['seconds']):8.2f}", flush=True)


if __name__ == "__main__":
    main()
