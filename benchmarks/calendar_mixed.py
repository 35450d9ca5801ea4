"""Weekdays and dates in one matrix: are the two loops separated, and each in its right order?

Two circles, of H harmonics each or of as many as V chooses, are fitted to the 140 weekday rows and
365 dates together on their leading axes; nothing says which row is of which. `calendar_mixed` takes
the mean of each sentence template out, and that knows the template, not the day. Accuracy is the
share of rows in the right loop (all rows in the larger one would have .723), then of the rows of
each loop; atoms are named so that the latter two sum to most. k-means stands beside it. Correlation
(Fisher and Lee) and median phase error (degrees) are of a loop's rows that were put in it, against
the true place in the cycle; the order is that of the weekdays among them (0 is Monday).
Fits "from labels" begin at the true loops and places: where their V is lower, the search is at
fault, and not V. `--only` takes the fits whose names hold one of these, by |.

`--held-out 3` says in its place whether V knows the order of the dates: with a quarter of the rows
held out, so often, two fits of the last kind begin at the labels, one of them with the dates in the
order that a fit to them alone has. Beside V stands what both give a row that was held out, in nats:
its evidence by Laplace's method and the share of its loop.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from discovery import fit
from known_start import fit_from
from sklearn.cluster import KMeans

import reml_sae as rs
from reml_sae.datasets import Calendar, calendar_mixed
from reml_sae.diagnostics import align_angles, circular_correlation
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.starts.protocol import CodeStart
from reml_sae.models.sae.rows import row_evidence

LEADING_AXES = 60
"""Principal axes that are kept, for speed; they hold 98 % of the squares."""
MOST_SECONDS = 600.0
FITS = (("softmax", (3, 3), "isotropic", False), ("topk", (3, 3), "isotropic", False),
        ("topk", (3, 6), "isotropic", False), ("topk", (2, 2), "factor", False),
        ("topk", (3, 3), "factor", False), ("topk", None, "auto", False),
        ("topk", (6, 7), "auto", False), ("topk", (6, 7), "auto", True))
"""Assignment, harmonics of the circles (None where V chooses them), noise, and whether the fit
begins at the labels."""


def week_atom(data: Calendar, labels: np.ndarray) -> int:
    """Which of two labels stands for the weekdays: the one that holds the larger share of them."""
    return int((labels[data.is_weekday] == 1).mean() > (labels[~data.is_weekday] == 1).mean())


def phase_error(angles: np.ndarray, truth: np.ndarray) -> float:
    gap = align_angles(angles, truth) - truth
    return float(np.degrees(np.median(np.abs(np.angle(np.exp(1j * gap))))))


def order_of_days(angles: np.ndarray, data: Calendar, rows: np.ndarray) -> str:
    """Days (0 is Monday) in the order of the circular means of their rows, from the first on."""
    turned, days = align_angles(angles, data.phase[rows]), np.unique(data.labels[rows])
    means = np.array([np.angle(np.exp(1j * turned[data.labels[rows] == day]).mean())
                      for day in days])
    return "".join(map(str, days[np.argsort(np.mod(means - means[0] + 1e-9, 2 * np.pi))]))


def loops(model: rs.SAEManifold, data: Calendar) -> Iterator[str]:
    """Correlation and phase error of each loop, and the order of the weekdays."""
    labels = model.codes_.assignments.argmax(axis=1)
    week = week_atom(data, labels)
    for atom, member in ((week, data.is_weekday), (1 - week, ~data.is_weekday)):
        rows = (labels == atom) & model.codes_.gates[:, atom] & member
        angles, phase = model.codes_.coordinates[atom][rows, 0], data.phase[rows]
        enough = rows.sum() >= 3
        correlation = abs(circular_correlation(angles, phase)) if enough else np.nan
        error = phase_error(angles, phase) if enough else np.nan
        yield f"{correlation:11.3f}{error:8.1f}"
        if atom == week:
            yield f"{order_of_days(angles, data, rows) if enough else '-':>9}"


def shares(data: Calendar, labels: np.ndarray) -> str:
    right = (labels == week_atom(data, labels)) == data.is_weekday
    return (f"{right.mean():9.3f}{right[data.is_weekday].mean():9.3f}"
            f"{right[~data.is_weekday].mean():9.3f}")


def at_labels(data: Calendar, angles: np.ndarray | None = None) -> CodeStart:
    """Every row on its own loop, the first that of the weekdays, at its true place or another."""
    support = np.column_stack([data.is_weekday, ~data.is_weekday])
    places = data.phase if angles is None else angles
    return CodeStart(Candidate(support, support.astype(float),
                               np.where(support, places[:, None], 0.0)), None)


def evidence(model: rs.SAEManifold, Z: np.ndarray) -> np.ndarray:
    """Log evidence of rows (n,) under a fit with one atom a row, on the loop that each takes."""
    arrow = model.build_model(Z)
    theta, rho = arrow.initial_theta(), arrow.initial_rho()
    shares = model.codes_.gates.mean(axis=0)
    return np.log(shares[arrow.active.argmax(axis=1)]) - row_evidence(
        arrow, arrow.refine_rows(theta, rho, 60), rho)


def held_out(data: Calendar, splits: int) -> None:
    options = {"n_atoms": 2, "topology": [rs.manifolds.Circle(n) for n in (6, 7)],
               "assignment": "topk", "noise": "auto", "max_time": MOST_SECONDS}
    print(f"{'split':<6}{'dates':<8}{'V':>10}{'rank':>6}{'date corr':>11}{'held out':>10}"
          f"{'difference':>12}{'se':>6}{'CPU s':>8}")
    for split in range(splits):
        held = np.random.default_rng(split).permutation(len(data.Z)) % 4 == 0
        train = replace(data, Z=data.Z[~held], phase=data.phase[~held], labels=data.labels[~held],
                        is_weekday=data.is_weekday[~held])
        alone = fit(train.Z[~train.is_weekday],
                    {**options, "n_atoms": 1, "topology": rs.manifolds.Circle(7)})[0]
        angles = train.phase.copy()
        angles[~train.is_weekday] = alone.codes_.coordinates[0][:, 0]
        first = None
        for name, start in (("labels", at_labels(train)), ("alone", at_labels(train, angles))):
            model, seconds = fit_from(train.Z, start, **options)
            found = evidence(model, data.Z[held])
            first = found if first is None else first
            rows = ~train.is_weekday & model.codes_.gates[:, 1]
            correlation = abs(circular_correlation(
                model.codes_.coordinates[1][rows, 0], train.phase[rows]))
            gap = found - first
            print(f"{split:<6}{name:<8}{model.criterion_:10.1f}{model.noise_.rank:6d}"
                  f"{correlation:11.3f}{found.mean():10.3f}{gap.mean():12.3f}"
                  f"{gap.std() / np.sqrt(len(gap)):6.2f}{seconds:8.1f}", flush=True)


def named(assignment: str, numbers: str, by_V: bool, noise: str, labels: bool) -> str:
    return (f"{assignment}, H = {numbers}{' by V' if by_V else ''}, {noise}"
            f"{' from labels' if labels else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--held-out", type=int, default=0, metavar="SPLITS")
    arguments = parser.parse_args()
    only = arguments.only.split("|")
    data = calendar_mixed()
    centred = data.Z - data.Z.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:LEADING_AXES]
    data = replace(data, Z=centred @ axes.T)
    print(f"weekdays and dates, two circles, N = {len(data.Z)}, p = {data.Z.shape[1]}")
    if arguments.held_out:
        held_out(data, arguments.held_out)
        return
    print(f"{'fit':<36}{'V':>11}{'EV':>7}{'accuracy':>9}{'weekdays':>9}{'dates':>9}"
          f"{'week corr':>11}{'error':>8}{'order':>9}{'date corr':>11}{'error':>8}"
          f"{'seconds':>9}  what failed")
    means = KMeans(2, n_init=20, random_state=0).fit_predict(data.Z)
    print(f"{'k-means':<36}{'':>18}{shares(data, means)}", flush=True)
    for assignment, h, noise, labels in FITS:
        asked = named(assignment, "open" if h is None else f"{h[0]}, {h[1]}", False, noise, labels)
        if not any(name in asked for name in only):
            continue
        topology = "circle" if h is None else [rs.manifolds.Circle(n) for n in h]
        options = {"n_atoms": 2, "topology": topology, "assignment": assignment, "noise": noise,
                   "max_time": MOST_SECONDS}
        model, seconds, failed = (*fit_from(data.Z, at_labels(data), **options), []) if labels \
            else fit(data.Z, options)
        found = model.codes_.assignments.argmax(axis=1)
        fitted = model.reconstruct(model.codes_)
        ev = 1.0 - ((data.Z - fitted) ** 2).sum() / (data.Z**2).sum()
        numbers = ", ".join(str(atom.topology.n_harmonics) for atom in model.atoms_)
        label = named(assignment, numbers, h is None, noise, labels)
        print(f"{label:<36}{model.criterion_:11.1f}{ev:7.3f}"
              f"{shares(data, found)}{''.join(loops(model, data))}{seconds:9.2f}  "
              f"{'; '.join(dict.fromkeys(failed)) or '-'}", flush=True)


if __name__ == "__main__":
    main()
