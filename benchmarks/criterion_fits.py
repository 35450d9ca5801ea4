"""What the estimator makes of planted curves: right basin, honest bands, curved atoms kept curved.

circles: one circle of radius 1; V of the fit against V of the fit that starts from the true phases,
the mean error of the radius, and coverage of the 95 % bands, in all coordinates and in the radial
one. The plane of the circle is that of the first two columns, so that the radial direction is a
column at four angles.

shapes: one or two circles, spheres and lines, one atom a row, in 4 to 12 columns, with noise of .08
to .4 on 800 to 1500 rows. A problem is right where every atom has its planted topology, and its
coordinates are about as good as those that a projection on the planted frame gives.

    python benchmarks/criterion_fits.py --part circles --seeds 0 20 [--rows 200] [--noise .3]
    python benchmarks/criterion_fits.py --part shapes --seeds 0 60
"""

import argparse
import time
import warnings
from types import SimpleNamespace

import numpy as np
from bands import GRID, aligned
from criterion import model_at

import reml_sae as rs
from reml_sae.datasets import planted_manifolds, recovery_scores
from reml_sae.errors import InnerConvergenceError
from reml_sae.manifolds import Circle

ROWS, NOISE, WIDE = (200, 500, 1000, 5000), (0.05, 0.2, 0.3, 0.5), ((12, 0.3),)
MOST_SEEDS = {5000: 5}
RADIAL = np.flatnonzero(np.isin(np.arange(len(GRID)), np.arange(4) * len(GRID) // 4))
AS_GOOD = 0.01
"""Nats by which V of a fit may lie above that of the fit from the true phases."""
START_LOG_ROUGHNESS = (0.0, 5.0)
KINDS = (["circle"], ["sphere"], ["linear"], ["circle", "circle"], ["sphere", "sphere"],
         ["circle", "linear"], ["circle", "sphere"], ["sphere", "linear"])
WIDTH = {"circle": 2, "sphere": 3, "linear": 1}
SLACK, FLOOR = 1.25, 0.02
"""Error of coordinates over that of the projection, and what is allowed in any case."""
LONGEST = 30.0


def curve(t, p):
    out = np.zeros((len(t), p))
    out[:, 0], out[:, 1] = np.cos(t), np.sin(t)
    return out


def from_truth(Z, t, sd):
    """Lowest V of REML fits from the true phases, converged ones first; NaN where none ends."""
    centred = Z - Z.mean(0)
    unit = float(np.sqrt((centred**2).mean()))
    found = []
    for strength in START_LOG_ROUGHNESS:
        model = model_at(centred / unit, unit, Circle(), t[:, None], sd)
        rho = model.initial_rho()
        rho[0] = strength
        try:
            result = rs.fit_reml(model.with_state(model.initial_theta(), rho))
        except InnerConvergenceError:
            continue
        found.append((not result.converged, result.criterion))
    return min(found, default=(True, np.nan))[1]


def fit(Z, **options):
    """A fit without its warnings, and its CPU seconds."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = rs.SAEManifold(**options).fit(Z)
    return model, time.process_time() - begun


def circle(n, sd, p, seed):
    """One planted circle: what is known of its fit."""
    rng = np.random.default_rng([seed, n, p])
    t = rng.uniform(-np.pi, np.pi, n)
    Z = curve(t, p) + sd * rng.normal(size=(n, p))
    model, seconds = fit(Z, n_atoms=1, topology="circle")
    atom = model.atoms_[0]
    gap, radius, inside, radial = model.criterion_ - from_truth(Z, t, sd), np.nan, [], []
    if atom.topology.name == "circle":
        target = curve(GRID, p)
        where = aligned(atom, target)
        low, high = atom.band(where, 0.95)
        inside = (target >= low) & (target <= high)
        radial = inside[RADIAL, np.abs(target[RADIAL]).argmax(axis=1)]
        points = atom.curve(where)
        radius = np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()) - 1.0
    return SimpleNamespace(
        gap=gap, converged=model.converged_, curved=atom.topology.name == "circle",
        radius=radius, inside=np.mean(inside) if len(inside) else np.nan,
        radial=np.mean(radial) if len(radial) else np.nan, seconds=seconds)


def mean_error(values):
    """Mean and its standard error over the finite values."""
    kept = np.array([v for v in values if np.isfinite(v)])
    if len(kept) < 2:
        return (kept.mean() if len(kept) else np.nan), np.nan
    return kept.mean(), kept.std(ddof=1) / np.sqrt(len(kept))


def circles(seeds, rows, noise):
    print(f"{'N':>5} {'sd':>5} {'p':>3} seeds  right curved  conv {'worst gap':>10} "
          f"{'radius error':>18} {'bands':>14} {'radial':>14} {'s':>6}")
    for n in rows:
        own = seeds[: MOST_SEEDS.get(n, len(seeds))]
        for p, sd in [*((4, sd) for sd in noise), *(case for case in WIDE if case[1] in noise)]:
            found = [circle(n, sd, p, seed) for seed in own]
            right = sum(one.curved and one.gap <= AS_GOOD for one in found)
            radius, inside, radial = (mean_error([getattr(one, name) for one in found])
                                      for name in ("radius", "inside", "radial"))
            print(f"{n:5d} {sd:5.2f} {p:3d} {len(own):5d} {right:6d} "
                  f"{sum(one.curved for one in found):6d} {sum(one.converged for one in found):5d} "
                  f"{max(one.gap for one in found):10.3f} "
                  f"{radius[0]:9.4f} +- {radius[1]:.4f} {inside[0]:6.3f} +- {inside[1]:.3f} "
                  f"{radial[0]:6.3f} +- {radial[1]:.3f} "
                  f"{np.mean([one.seconds for one in found]):6.2f}", flush=True)


def problem(seed):
    """A random problem; its kind goes round with the seed, so that any slice has all kinds."""
    rng = np.random.default_rng([seed, 60])
    names = KINDS[seed % len(KINDS)]
    width = sum(WIDTH[name] for name in names)
    p = int(rng.integers(max(4, width), 13))
    sd, n = float(rng.uniform(0.08, 0.4)), int(rng.integers(800, 1501))
    return planted_manifolds(n, p, names, noise_sd=sd, orthogonal=True, random_state=seed)


def projected(plant):
    """Codes that the planted frames and supports give."""
    coordinates = []
    for name, frame in zip(plant.topologies, plant.frames, strict=True):
        local = plant.Z @ frame.T
        if name == "circle":
            local = np.arctan2(local[:, [1]], local[:, [0]])
        elif name == "sphere":
            local = local / np.linalg.norm(local, axis=1, keepdims=True)
        coordinates.append(local)
    return SimpleNamespace(assignments=plant.support.astype(float), coordinates=coordinates,
                           gates=plant.support)


def shapes(seeds):
    print(f"{'seed':>4} {'planted':<15} {'N':>5} {'p':>3} {'sd':>5} {'fitted':<15} conv accuracy "
          f"{'error / projected':>17} {'':>5} {'cpu s':>6} {'wall s':>6}")
    right, slow = 0, 0
    for seed in seeds:
        plant = problem(seed)
        begun = time.perf_counter()
        model, seconds = fit(plant.Z, n_atoms=len(plant.topologies),
                             topology=list(plant.topologies))
        wall = time.perf_counter() - begun
        topologies = [atom.topology for atom in model.atoms_]
        scores = recovery_scores(plant, model.codes_, topologies)
        ideal = recovery_scores(plant, projected(plant), plant.topologies).coordinate_error
        good = not scores.mismatched and bool(
            (scores.coordinate_error <= SLACK * ideal + FLOOR).all())
        right, slow = right + good, slow + (seconds >= LONGEST)
        short = "+".join(name[:6] for name in plant.topologies)
        fitted = "+".join(atom.name[:6] for atom in topologies)
        ratio = " ".join(f"{r:.2f}" for r in scores.coordinate_error / ideal)
        print(f"{seed:4d} {short:<15} {len(plant.Z):5d} {plant.Z.shape[1]:3d} "
              f"{plant.noise_sd:5.2f} {fitted:<15} {model.converged_!s:>5} "
              f"{scores.assignment_accuracy:7.3f} {ratio:>17} {'right' if good else 'WRONG'} "
              f"{seconds:6.2f} {wall:6.2f}", flush=True)
    print(f"{right} of {len(seeds)} right, {slow} took {LONGEST:.0f} CPU s or more")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("circles", "shapes"), required=True)
    parser.add_argument("--seeds", nargs=2, type=int, metavar=("FIRST", "END"),
                        help="half-open range; 0 20 of circles, 0 60 of shapes by default")
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS, help="of circles")
    parser.add_argument("--noise", nargs="+", type=float, default=NOISE, help="of circles")
    options = parser.parse_args()
    first, end = options.seeds or ((0, 20) if options.part == "circles" else (0, 60))
    seeds = list(range(first, end))
    if options.part == "circles":
        circles(seeds, options.rows, options.noise)
    else:
        shapes(seeds)


if __name__ == "__main__":
    main()
