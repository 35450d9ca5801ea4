"""Planted batteries: does the fit find what was planted, and does it say so when it does not?

`python benchmarks/discovery.py BATTERY --seeds 10 --budget 3600 > out.txt`; `discovery_parts.py`
has what each battery plants. One row a case, over its seeds:

- conv: seeds whose fit reports convergence, of those run.
- EV - planted: explained variance of the training rows less that of the noiseless signal, median
  and lowest. It is a little above 0 where all is well, since coordinates follow the noise.
- err: mean square error against the noiseless signal over noise_sd^2, median; overfitting cannot
  lower it. 1 is no better than the data themselves.
- sd: fitted noise sd over the planted one, median.
- acc: share of rows with the right atom, or mean Jaccard index of the atoms of a row where rows
  have several; median and lowest.
- coord: coordinate error after the best gauge change, of the worst atom (radians, standard
  deviations or lengths: see `reml_sae.datasets.RecoveryScores`), median and highest.
- seconds: CPU seconds of a fit, median.
- what failed: message of every fit that did not converge or raised, atoms that were not found, and
  fits that explain less than the planted signal by more than a hundredth; with their seeds.

The battery `auto` gives the share of seeds in which ``topology="auto"`` chose the planted shape,
with all that it chose instead. The budget is split evenly over the cases that remain; a case starts
no new fit once its part is used up, and shows the seeds that it ran.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from discovery_parts import BATTERIES, AutoCase, Case, auto_cases, called

import reml_sae as rs
from reml_sae.datasets import recovery_scores
from reml_sae.errors import ConvergenceWarning

SHORTFALL = 0.01
FIGURES = ("gap", "error", "noise", "accuracy", "coordinate", "seconds")


def fit(Z: np.ndarray, options: dict[str, Any]) -> tuple[rs.SAEManifold, float, list[str]]:
    """The fitted model, its CPU seconds, and the warnings beside that of convergence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begun = time.process_time()
        model = rs.SAEManifold(**options).fit(Z)
        seconds = time.process_time() - begun
    other = [f"{item.category.__name__}: {item.message}" for item in caught
             if not issubclass(item.category, ConvergenceWarning)]
    return model, seconds, other + ([] if model.converged_ else [model.message_])


def recovered(case: Case, seed: int) -> tuple[dict[str, float], list[str]]:
    """Figures of one fit, and what failed in it."""
    data = case.plant(random_state=seed)
    model, seconds, failed = fit(data.Z, case.options)
    scores = recovery_scores(data, model.codes_, [atom.topology for atom in model.atoms_])
    fitted = model.reconstruct(model.codes_)
    total = ((data.Z - data.Z.mean(axis=0)) ** 2).sum()
    gap = 1.0 - ((data.Z - fitted) ** 2).sum() / total - data.explained_variance
    lost = scores.mismatched + tuple(
        f"atom {k} has no coordinates to compare"
        for k in np.flatnonzero(np.isnan(scores.coordinate_error))
        if not any(text.startswith(f"atom {k}:") for text in scores.mismatched))
    if gap < -SHORTFALL:
        failed.append(f"explains {-gap:.3f} less than planted")
    figures = {
        "converged": float(model.converged_),
        "gap": gap,
        "error": ((fitted - data.signal) ** 2).mean() / data.noise_sd**2,
        "noise": np.sqrt(model.dispersion_) / data.noise_sd,
        "accuracy": scores.assignment_accuracy,
        # NaN where an atom was not found: one that is missing has no worst error
        "coordinate": float(scores.coordinate_error.max()),
        "seconds": seconds,
    }
    return figures, failed + list(lost)


def chosen(case: AutoCase, seed: int) -> tuple[tuple[str, float], list[str]]:
    """What "auto" calls the rows, its seconds, and what failed."""
    model, seconds, failed = fit(case.rows(random_state=seed),
                                 {"n_atoms": 1, "topology": "auto", **case.options})
    return (called(model.atoms_[0].topology), seconds), failed


@dataclass
class Seeds:
    """What the seeds of a case gave, and the seeds of each failure."""

    ran: list[int] = field(default_factory=list)
    outcomes: dict[int, Any] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def span(self) -> str:
        return f"0-{self.ran[-1]}" if len(self.ran) > 1 else named(self.ran) or "not run"

    @property
    def failed(self) -> str:
        return "; ".join(f"[seed {named(seeds)}] {' '.join(text.split())}"
                         for text, seeds in self.failures.items()) or "-"


def named(seeds: list[int]) -> str:
    return ",".join(map(str, seeds))


def collect(run: Callable[[int], tuple[Any, list[str]]], seeds: int, seconds: float) -> Seeds:
    """Outcomes by seed until the seconds are used up."""
    end = time.perf_counter() + seconds
    found = Seeds()
    for seed in range(seeds):
        if time.perf_counter() >= end:
            break
        found.ran.append(seed)
        try:
            found.outcomes[seed], failed = run(seed)
        except Exception as error:  # a fit that raises is a result of the battery
            failed = [f"{type(error).__name__}: {error}"]
        for text in dict.fromkeys(failed):
            found.failures[text].append(seed)
    return found


def recovery_row(case: Case, found: Seeds) -> str:
    head = f"{case.label:<42}{found.span:>8}"
    if not found.outcomes:
        return f"{head}  {found.failed}"
    rows = list(found.outcomes.values())
    gap, error, noise, accuracy, coordinate, took = (
        np.array([row[name] for row in rows]) for name in FIGURES)
    converged = f"{sum(row['converged'] for row in rows):.0f}/{len(found.ran)}"
    known = coordinate[~np.isnan(coordinate)]
    middle, worst = (np.median(known), known.max()) if len(known) else (np.nan, np.nan)
    return (f"{head}{converged:>7}{np.median(gap):9.4f}{gap.min():9.4f}{np.median(error):8.3f}"
            f"{np.median(noise):7.3f}{np.median(accuracy):8.4f}{accuracy.min():8.4f}"
            f"{middle:8.4f}{worst:8.4f}{np.median(took):9.2f}  {found.failed}")


def auto_row(case: AutoCase, found: Seeds) -> str:
    answers: dict[str, list[int]] = defaultdict(list)
    for seed, (name, _) in found.outcomes.items():
        answers[name].append(seed)
    right = sum(len(seeds) for name, seeds in answers.items() if name in case.right)
    tally = ", ".join(f"{name} x{len(seeds)}" if name in case.right
                      else f"{name} [seed {named(seeds)}]" for name, seeds in answers.items())
    took = np.median([seconds for _, seconds in found.outcomes.values()] or [np.nan])
    return (f"{case.label:<24}{found.span:>8}{f'{right}/{len(found.ran)}':>8}{took:9.2f}  "
            f"{tally or '-'}  | {found.failed}")


RECOVERY_HEAD = (f"{'case':<42}{'seeds':>8}{'conv':>7}{'EV-plant':>9}{'lowest':>9}{'err':>8}"
                 f"{'sd':>7}{'acc':>8}{'lowest':>8}{'coord':>8}{'worst':>8}{'seconds':>9}"
                 "  what failed")
AUTO_HEAD = f"{'planted':<24}{'seeds':>8}{'right':>8}{'seconds':>9}  chosen  | what failed"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("battery", choices=[*BATTERIES, "auto"])
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0, 1, ... of each case")
    parser.add_argument("--budget", type=float, default=np.inf, help="seconds for all of it")
    parser.add_argument("--only", default="", help="cases whose label holds this text")
    parser.add_argument("--noise", help="kind of the noise; default that of the estimator")
    options = parser.parse_args()
    automatic = options.battery == "auto"
    cases = [case for case in (auto_cases() if automatic else BATTERIES[options.battery])
             if options.only in case.label]
    if options.noise:
        cases = [replace(case, options={**case.options, "noise": options.noise}) for case in cases]
    if not cases:
        parser.error(f"no case of {options.battery} has {options.only!r} in its label")
    print(AUTO_HEAD if automatic else RECOVERY_HEAD, flush=True)
    end, fits = time.perf_counter() + options.budget, 0
    for number, case in enumerate(cases):
        part = (end - time.perf_counter()) / (len(cases) - number)
        found = collect(partial(chosen if automatic else recovered, case), options.seeds, part)
        fits += len(found.ran)
        print((auto_row if automatic else recovery_row)(case, found), flush=True)
    print(f"  {fits} of {options.seeds * len(cases)} fits were run")


if __name__ == "__main__":
    main()
