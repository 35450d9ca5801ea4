"""Planted atoms in noise with a covariance: kind of the noise, its rank, and what is found in it.

`python benchmarks/noise.py --seeds 8 --slow 2 > out.txt`. Circles and spheres of radius 1 and
planes of that size, noise of standard deviation .2 in the geometric mean, in 12 columns, whose
variances differ by a hundred ("diagonal"), or with factors of standard deviation 1.5 to 3 beside
it; one row a case, fitted with noise="auto":

- conv: seeds that converge, of those run.
- kind: seeds whose noise is of the planted kind; "auto" is right where it names that.
- rank: those with the planted number of factors, where factors were planted.
- acc: lowest share of rows with the right atom.
- coord, oracle: median coordinate error of the worst atom after the best gauge change, and that of
  who knows every atom, every label and the covariance of the noise: the mode in its metric.
- V: median of the `--both` first seeds, less that of the fit with isotropic noise.
- seconds, isotropic: median CPU seconds of the `--both` first seeds, or of all where there are
  none, and those of that fit.

A plane is two factors more, unless the noise is diagonal: "flat" counts the seeds in which noise
alone is said to do as well. The fit keeps the plane that was asked for, so that the rank is that of
the factors beside it.

The cases named "nothing" have no atom at all: "flat" counts the seeds in which one circle is said
to be no better than a flat, or than noise alone, and "none" those (of the `--both` first) in which
n_atoms="auto" leaves no atom. Of the slow cases, several circles and spheres, there are `--slow`
seeds, one of them with the isotropic fit beside; of four circles none. The last line has all
seeds, and the CPU seconds of all fits beside those of the isotropic ones.
"""

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np

import reml_sae as rs
from reml_sae.datasets import Planted, planted_mixture, recovery_scores

NOISE_SD, COLUMNS = 0.2, 12
FACTORS = {1: (2.5,), 2: (3.0, 2.0), 3: (3.0, 2.0, 1.5), 4: (3.0, 2.5, 2.0, 1.5),
           5: (3.0, 2.5, 2.0, 1.5, 1.5)}


@dataclass(frozen=True)
class Case:
    """What is planted, in which noise, and how it is fitted."""

    shapes: tuple[str, ...]
    noise: str
    rank: int = 0
    assignment: str = "softmax"
    n_rows: int = 300

    @property
    def is_slow(self) -> bool:
        return len(self.shapes) > 1 or self.shapes == ("sphere",)

    @property
    def label(self) -> str:
        atoms = f"{len(self.shapes)} {self.shapes[0]}" if self.shapes else "nothing"
        return f"{atoms}, {self.assignment}, {self.noise}{self.rank or ''}"


CASES = [
    Case(("circle",), "isotropic"), Case(("circle",), "diagonal"),
    *(Case(("circle",), "factor", rank) for rank in FACTORS),
    *(Case(("circle",) * 2, noise, rank, assignment, 400)
      for assignment in ("softmax", "topk")
      for noise, rank in (("isotropic", 0), ("diagonal", 0), ("factor", 3))),
    *(Case(("circle",) * 4, noise, rank, assignment, 800)
      for assignment in ("softmax", "topk") for noise, rank in (("diagonal", 0), ("factor", 2))),
    *(Case((shape,), noise, rank) for shape in ("sphere", "plane")
      for noise, rank in (("isotropic", 0), ("diagonal", 0), ("factor", 3))),
    *(Case((), noise, rank) for noise, rank in (("isotropic", 0), ("diagonal", 0),
                                                ("factor", 1), ("factor", 3), ("factor", 5))),
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


def fit(case: Case, rows: np.ndarray, noise: str,
        n_atoms: int | str | None = None) -> tuple[rs.SAEManifold, float]:
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        topology = list(case.shapes) or ["circle"]
        options = ({"n_atoms": len(topology), "topology": topology} if n_atoms is None
                   else {"n_atoms": n_atoms})
        model = rs.SAEManifold(assignment=case.assignment, noise=noise, **options).fit(rows)
    return model, time.process_time() - begun


def run(case: Case, seed: int, both: bool) -> dict[str, float]:
    data, rows, cov = planted(case, seed)
    model, seconds = fit(case, rows, "auto")
    found = {
        "conv": float(model.converged_), "kind": float(model.noise_.kind == case.noise),
        "rank": float(getattr(model.noise_, "rank", 0) == case.rank), "seconds": seconds,
        "acc": np.nan, "coord": np.nan, "oracle": np.nan, "flat": np.nan, "none": np.nan,
        "V": np.nan, "isotropic": np.nan,
    }
    if both:
        plain, found["isotropic"] = fit(case, rows, "isotropic")
        found["V"] = model.criterion_ - plain.criterion_
    if data is None:
        if both:
            alone = fit(case, rows, "auto", "auto")[0].atoms_
            found["none"] = float([atom.topology.name for atom in alone] == ["point"])
        return found | {"flat": float(bool(model.search_.no_atom or model.search_.flat_twins))}
    scores = recovery_scores(data, model.codes_, [atom.topology for atom in model.atoms_])
    if case.shapes == ("plane",):
        found["flat"] = float(bool(model.search_.no_atom))
    return found | {"acc": scores.assignment_accuracy,
                    "coord": float(scores.coordinate_error.max()),
                    "oracle": oracle(data, rows, cov)}


def shown(values: np.ndarray, form: str) -> str:
    """The median in a format, or a dash."""
    known = values[np.isfinite(values)]
    width = int(form.split(".")[0])
    return f"{np.median(known):{form}}" if len(known) else f"{'-':>{width}}"


def share(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.sum():.0f}/{len(known)}" if len(known) else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow", type=int, default=2, help="seeds of the slow cases")
    parser.add_argument("--both", type=int, default=2, help="seeds with the isotropic fit beside")
    parser.add_argument("--only", default="", help="cases whose label holds one of these, by |")
    options = parser.parse_args()
    cases = [case for case in CASES if any(name in case.label
                                           for name in options.only.split("|"))]
    print(f"{'case':29}{'seeds':>6}{'conv':>7}{'kind':>7}{'rank':>7}{'flat':>7}{'none':>7}"
          f"{'acc':>8}{'coord':>8}{'oracle':>8}{'V':>10}{'seconds':>9}{'isotropic':>10}")
    everything: list[dict[str, float]] = []
    for case in cases:
        both = min(options.both, int(len(case.shapes) < 4)) if case.is_slow else options.both
        table = [run(case, seed, seed < both)
                 for seed in range(options.slow if case.is_slow else options.seeds)]
        everything += table
        total = {key: np.array([row[key] for row in table]) for key in table[0]}
        acc = total["acc"].min()
        print(f"{case.label:29}{len(table):6d}"
              + "".join(f"{share(total[key]):>7}"
                        for key in ("conv", "kind", "rank", "flat", "none"))
              + (f"{acc:8.4f}" if np.isfinite(acc) else f"{'-':>8}")
              + shown(total["coord"], "8.4f") + shown(total["oracle"], "8.4f")
              + shown(total["V"], "10.1f")
              + shown(total["seconds"][:both or None], "9.2f")
              + shown(total["isotropic"], "10.2f"), flush=True)
    pairs = np.array([[row["seconds"], row["isotropic"]] for row in everything])
    pairs = pairs[np.isfinite(pairs).all(axis=1)].sum(axis=0)
    print("all: " + ", ".join(f"{key} {share(np.array([row[key] for row in everything]))}"
                              for key in ("conv", "kind", "rank", "flat", "none"))
          + f"; CPU seconds {pairs[0]:.0f} for {pairs[1]:.0f} of isotropic fits")


if __name__ == "__main__":
    main()
