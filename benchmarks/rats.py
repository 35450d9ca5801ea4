"""Cells along real paths of rats: what is decoded from them, without labels, and the shape named.

Positions are those of ratinabox's data sets; its head-direction cells (50, 45 degrees wide) and one
module of its grid cells (50, period .4 m) fire along them, at .5 to 20 Hz. A row is a window of
.25 s, one every .4 s: Poisson counts, or the rates over their peak plus Gaussian noise of .2. Two
thirds of the rows are fitted; errors, on the others, are medians, means over the seeds: of the
heading in degrees, of the position in cm, the nearest of those that the module cannot tell apart.

- counts: one circle or torus, Poisson; roots: Gaussian, of the roots of the counts.
- linear: principal components and a linear map to the cosines and sines of the phases, which is
  told them; their number by cross-validation.
- dreimac: persistent cohomology of the leading 6 principal scores of the roots, all rows at once.
- auto: shapes named by ``topology="auto"`` (times), of the roots or the rates.

Fits and dreimac know the truth up to rotation and reflection of the circle, and unimodular maps of
the torus. ``integration="laplace"``: on a torus exact integrals cost too much for a benchmark.
"""

import argparse
import contextlib
import io
import time
import warnings
from collections import Counter

import numpy as np
from known_start import fit, fit_from
from ratinabox.Agent import Agent
from ratinabox.Environment import Environment
from ratinabox.Neurons import GridCells, HeadDirectionCells
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from reml_sae.datasets._alignment import UNIMODULAR
from reml_sae.discovery.starts.protocol import on_one_atom

try:
    from dreimac import ToroidalCoords
except ImportError:
    ToroidalCoords = None

ROOMS = {"sargolini": [[0, 0], [1, 0], [1, 1], [0, 1]],
         "tanni": [[-0.1, -0.1], [3.6, -0.1], [3.6, 2.6], [-0.1, 2.6]]}
CELLS, PERIOD, TURN, PEAK, LEAST = 50, 0.4, 0.1, 20.0, 0.5
WINDOW, EVERY, STEP = 0.25, 0.4, 0.1
NOISE_SD = 0.2
COMPONENTS = (2, 4, 6, 10, 20, CELLS)
LANDMARKS, SCORES = 400, 6
CASES = (("sargolini", 600), ("sargolini", 1500), ("tanni", 1500))
MOST_SECONDS = 300.0
SHAPE = {1: "circle", 2: "torus"}


def walk(name: str, n: int) -> tuple[Agent, np.ndarray, np.ndarray]:
    """An agent along the path, and its positions (m) and headings (unit vectors) at n times."""
    np.random.seed(0)  # noqa: NPY002 (ratinabox jitters a path from it)
    with contextlib.redirect_stdout(io.StringIO()):
        agent = Agent(Environment({"boundary": ROOMS[name]}), {"dt": STEP})
        agent.import_trajectory(dataset=name)
    every = round(EVERY / STEP)
    for _ in range(n * every):
        agent.update()
    rows = slice(every - 1, None, every)
    return agent, np.array(agent.history["pos"])[rows], np.array(
        agent.history["head_direction"])[rows]


def heading_cells(agent: Agent, heading: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (N, cells) in Hz, angles (N, 1), and degrees a radian."""
    cells = HeadDirectionCells(agent, {"n": CELLS, "min_fr": LEAST, "max_fr": PEAK})
    rates = np.hstack([cells.get_state(evaluate_at=None, head_direction=h) for h in heading]).T
    return rates, np.arctan2(heading[:, 1], heading[:, 0])[:, None], np.array([[180.0 / np.pi]])


def grid_cells(agent: Agent, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (N, cells) in Hz, the module's two phases (N, 2), and cm a radian (2, 2)."""
    cells = GridCells(agent, {"n": CELLS, "gridscale": (PERIOD,), "orientation": (TURN,),
                              "min_fr": LEAST, "max_fr": PEAK})
    wave = 2.0 * np.pi / PERIOD * cells.w[0, :2]
    return (cells.get_state(evaluate_at=None, pos=position).T, position @ wave.T,
            100.0 * np.linalg.inv(wave).T)


def wrapped(angles: np.ndarray) -> np.ndarray:
    return np.mod(angles + np.pi, 2.0 * np.pi) - np.pi


def gap(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Phases (n, d) missed, after the best change of gauge."""
    maps = [np.array([[1.0]]), np.array([[-1.0]])] if true.shape[1] == 1 else UNIMODULAR
    missed = [wrapped(true - found @ m.T) for m in maps]
    missed = [wrapped(m - np.angle(np.exp(1j * m).mean(axis=0))) for m in missed]
    return min(missed, key=lambda m: float((m**2).mean()))


def distance(missed: np.ndarray, unit: np.ndarray) -> float:
    """Median length of missed phases in the units of the table, the shortest way round."""
    turns = 2.0 * np.pi * np.stack(np.meshgrid(*[[-1, 0, 1]] * len(unit)), -1).reshape(
        -1, len(unit))
    lengths = np.linalg.norm((wrapped(missed)[:, None] + turns) @ unit, axis=2)
    return float(np.median(lengths.min(axis=1)))


def linear(rows: np.ndarray, true: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Phases missed by a linear map that is told those of the rows not held out."""
    target = np.hstack([np.cos(true), np.sin(true)])
    search = GridSearchCV(make_pipeline(PCA(), LinearRegression()),
                          {"pca__n_components": COMPONENTS})
    out = search.fit(rows[~held], target[~held]).predict(rows[held])
    d = true.shape[1]
    return wrapped(true[held] - np.arctan2(out[:, d:], out[:, :d]))


def cohomology(rows: np.ndarray, d: int) -> np.ndarray | None:
    """dreimac's circular coordinates (N, d) of all rows; None where it finds none."""
    if ToroidalCoords is None:
        return None
    scores = PCA(SCORES).fit_transform(rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ToroidalCoords(scores, LANDMARKS).get_coordinates(cocycle_idxs=list(range(d)))
    except Exception:
        # it raises a bare Exception where classes do not overlap or have no integral lift
        return None
    return np.atleast_2d(np.asarray(found)).T


def fitted(rows, true, held, unit, family="gaussian"):
    """Error on the rows held out, how far V is above a fit begun at the truth, and seconds."""
    options = {"topology": SHAPE[true.shape[1]], "family": family, "integration": "laplace",
               "max_time": MOST_SECONDS}
    model, seconds = fit(rows[~held], **options)
    truth = fit_from(rows[~held], on_one_atom(true[~held]), **options)[0]
    missed = gap(model.encode(rows[held]).coordinates[0], true[held])
    return distance(missed, unit), model.criterion_ - truth.criterion_, seconds, model.converged_


def named(rows: np.ndarray, held: np.ndarray) -> str:
    model = fit(rows[~held], topology="auto", integration="laplace", max_time=MOST_SECONDS)[0]
    return model.atoms_[0].topology.name


def run(rates, true, unit, held, counted, rng):
    """Errors by method, and the shape named."""
    counts = rng.poisson(WINDOW * rates)
    rows = np.sqrt(counts) if counted else rates / PEAK + NOISE_SD * rng.normal(size=rates.shape)
    begun = time.process_time()
    coordinates = cohomology(rows, true.shape[1])
    seconds = time.process_time() - begun
    out = {"linear": distance(linear(rows, true, held), unit), "dreimac s": seconds,
           "dreimac": (np.nan if coordinates is None
                       else distance(gap(coordinates[held], true[held]), unit))}
    for name, data, family in (("counts", counts, "poisson"), ("gaussian", rows, "gaussian")):
        if counted or family == "gaussian":
            found = fitted(data, true, held, unit, family)
            out |= dict(zip((name, f"{name} gap", f"{name} s", f"{name} conv"), found, strict=True))
    return out, named(rows, held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=10**6, help="cases of no more rows")
    parser.add_argument("--cells", default="heading grid", help="of these only")
    args = parser.parse_args()
    print(f"{'path':10}{'cells':8}{'rows':>5} {'data':7}{'counts':>8}{'gap V':>7}{'CPU s':>7}"
          f"{'roots':>8}{'gap V':>7}{'CPU s':>7}{'conv':>6}{'linear':>8}{'dreimac':>9}{'CPU s':>7}"
          "  auto")
    for path, n in CASES:
        if n > args.rows:
            continue
        agent, position, heading = walk(path, n)
        for kind, cells, where in (("heading", heading_cells, heading),
                                   ("grid", grid_cells, position)):
            for counted in (True, False) if kind in args.cells else ():
                found, names = [], Counter()
                for seed in range(args.seeds):
                    np.random.seed(seed)  # noqa: NPY002 (ratinabox draws its cells from it)
                    rng = np.random.default_rng(seed)
                    rates, true, unit = cells(agent, where)
                    out, name = run(rates, true, unit, rng.permutation(n) % 3 == 0, counted, rng)
                    found.append(out)
                    names[name] += 1
                mean = {key: np.mean([row.get(key, np.nan) for row in found])
                        for row in found for key in row}
                conv = sum(row["gaussian conv"] and row.get("counts conv", True) for row in found)
                text = {key: f"{mean.get(key, np.nan):.2f}".replace("nan", "-") for key in
                        ("counts", "counts gap", "counts s", "gaussian", "gaussian gap",
                         "gaussian s", "linear", "dreimac", "dreimac s")}
                print(f"{path:10}{kind:8}{n:5d} "
                      f"{'Poisson' if counted else 'rates':7}{text['counts']:>8}"
                      f"{text['counts gap']:>7}{text['counts s']:>7}{text['gaussian']:>8}"
                      f"{text['gaussian gap']:>7}{text['gaussian s']:>7}"
                      f"{f'{conv}/{len(found)}':>6}{text['linear']:>8}{text['dreimac']:>9}"
                      f"{text['dreimac s']:>7}  "
                      f"{', '.join(f'{k} ({c})' for k, c in names.items())}", flush=True)


if __name__ == "__main__":
    main()
