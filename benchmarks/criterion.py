"""The criterion V against the marginal likelihood by brute force, at the same outer parameters.

One atom on planted rows, noise and roughness known, started from the planted coordinates. The truth
(`tests/reference/brute_force.py`) integrates every row by quadrature to 1e-10, and the decoders by
Laplace's method about their mode with the rows integrated out, the gauge exactly. V passes where it
is within .3 nats and 1 % of the number of decoder parameters. Then circle against plane as V and as
the truth decide, on rows of either; then two circles under hard gates, 24 rows with one or two
atoms each and several seeds, where the truth is importance sampling over the decoders. The column
"laplace" says how far from it a Laplace approximation about the decoders' marginal mode lies, whose
rows are exact, and "next" how far that of the next order (`tests/reference/second_order.py`): what
V has beyond "laplace" is the rows', what "next" takes away is the decoders' few rows. Last, more
rows with two atoms each, V against that Laplace approximation.

    python benchmarks/criterion.py [--quick] [--only circle torus] [--seed 0]
"""

import argparse
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np

import reml_sae as rs
from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_manifolds
from reml_sae.engine import Theta
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.manifolds import Circle, Cylinder, Euclidean, Interval, Mobius, Sphere, Torus
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.start import solve_beta
from reml_sae.penalties import QuadraticPenalty

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.reference.brute_force import brute_force  # noqa: E402
from tests.reference.brute_gates import GatedRows  # noqa: E402
from tests.reference.importance import circle_side, importance  # noqa: E402
from tests.reference.second_order import second_order  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "criterion.txt"
ROWS, NOISE = (100, 500, 2000), (0.1, 0.3, 0.5)
QUICK_ROWS, QUICK_NOISE = (100, 500), (0.3,)
SHAPES = {
    "circle": (Circle(2), "circle", 3),
    "ellipse": (Circle(1), "circle", 3),
    "sphere": (Sphere(2), "sphere", 3),
    "torus": (Torus(1), "torus", 4),
    "interval": (Interval(8), "interval", 3),
    "line": (Euclidean(1, 1), "linear", 3),
    "plane": (Euclidean(2, 1), "plane", 3),
    "cylinder": (Cylinder(1, 1), "cylinder", 3),
    "mobius": (Mobius(1), "mobius", 3),
}
"""Atom, planted shape and columns; "ellipse" is the atom with the first harmonic alone."""
LOG_ROUGHNESS = 0.0
GATES = ((1, 3, 0.1, (96, 6)), (1, 3, 0.2, (64, 4)), (2, 4, 0.1, (48, 5)), (2, 4, 0.2, (40, 4)))
"""Atoms a row, columns, noise, and nodes an axis of angle and log amplitude."""
QUICK_GATES = GATES[1::2]
GATED_ROWS, LOG_AMPLITUDE_SD, GATED_SEEDS = 24, 0.05, 5
DRAWS, ROUNDS = 4000, 4
MORE_ROWS, MORE_NOISE, MORE_COLUMNS = (100, 400, 1600), (0.2, 0.3), 16


def planted_rows(shape, n, p, sd, seed=0):
    """Standardised data, their unit, and the planted coordinates."""
    plant = planted_manifolds(n, p, [shape], noise_sd=sd, random_state=seed)
    Z = plant.Z - plant.Z.mean(0)
    unit = float(np.sqrt((Z**2).mean()))
    return Z / unit, unit, plant.coordinates[0]


def model_at(Z, unit, atom, coordinates, sd):
    """The model at known noise and roughness, decoders by least squares at given coordinates."""
    terms, rho = [], [2.0 * np.log(sd / unit)]
    if atom.roughness() is not None:
        terms = [PenaltyTerm(QuadraticPenalty(S=atom.roughness()), "decoder", 0)]
        rho = [LOG_ROUGHNESS, *rho]
    start = Theta(np.array(coordinates, float), np.zeros((atom.basis_size, Z.shape[1])))
    model = SAEManifoldModel(Z, [atom], terms, np.ones((len(Z), 1), bool), start, np.array(rho),
                             unit=unit)
    return model.with_state(solve_beta(model, start, model.initial_rho()), model.initial_rho())


def engine_value(model):
    """V, the decoders at its mode, and what is to be said of it; NaN where there is none."""
    try:
        found = rs.criterion(model, model.initial_rho(), gradient=False, tol=1e-8, max_inner=400)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        return np.nan, None, type(error).__name__
    note = "" if found.inner.converged else found.inner.status.name.lower()
    return found.value, found.inner.theta.beta, note


def truth_value(model, starts):
    """The truth at a model's outer parameters: the lowest of the modes found from the starts."""
    atom, rho = model.atoms[0], model.initial_rho()
    found = [brute_force(model.Z, atom, dispersion=float(np.exp(rho[model.outer.dispersion])),
                         roughness=float(np.exp(LOG_ROUGHNESS)), B=B, unit=model.unit)
             for B in starts]
    best = min(found, key=lambda truth: truth.value)
    return best.value - best.log_multiplicity


def both(model):
    """V and the truth with the CPU seconds of each, and a note."""
    begun = time.process_time()
    V, beta, note = engine_value(model)
    between = time.process_time()
    starts = [model.initial_theta().beta] + [beta] * (beta is not None)
    truth = truth_value(model, starts)
    return V, truth, between - begun, time.process_time() - between, note


def accuracy(show, names, rows, noise, seed):
    """Table of V against the truth."""
    show(f"{'topology':<9} {'N':>5} {'sd':>4} {'truth':>11} {'V - truth':>10} {'params':>6} "
         f"{'allowed':>7} {'':>4} {'V s':>6} {'truth s':>7}")
    passed = total = 0
    for name in names:
        atom, shape, p = SHAPES[name]
        for n in rows:
            for sd in noise:
                Z, unit, t = planted_rows(shape, n, p, sd, seed)
                V, truth, own, brute, note = both(model_at(Z, unit, atom, t, sd))
                size = atom.basis_size * p
                allowed = 0.3 + 0.01 * size
                good = bool(abs(V - truth) <= allowed)
                passed, total = passed + good, total + 1
                show(f"{name:<9} {n:5d} {sd:4.1f} {truth:11.3f} {V - truth:10.3f} {size:6d} "
                     f"{allowed:7.2f} {'pass' if good else 'FAIL'} {own:6.2f} {brute:7.2f} {note}")
    show(f"{passed} of {total} pass\n")


def as_circle(t):
    return np.arctan2(t[:, [1]], t[:, [0]])


def as_plane(t):
    return np.sqrt(2.0) * np.column_stack([np.cos(t[:, 0]), np.sin(t[:, 0])])


def decisions(show, rows, noise, seed):
    """Circle against plane by V and by the truth."""
    show(f"circle minus plane, negative where the circle is better\n{'rows of':<8} {'N':>5} "
         f"{'sd':>4} {'by V':>10} {'by truth':>10}")
    passed = total = 0
    for shape in ("circle", "plane"):
        for n in rows:
            for sd in noise:
                Z, unit, t = planted_rows(shape, n, 3, sd, seed)
                is_circle = shape == "circle"
                circle = both(model_at(Z, unit, Circle(2), t if is_circle else as_circle(t), sd))
                plane = both(model_at(Z, unit, Euclidean(2, 1), as_plane(t) if is_circle else t,
                                      sd))
                by_V, by_truth = circle[0] - plane[0], circle[1] - plane[1]
                good = bool(np.sign(by_V) == np.sign(by_truth))
                passed, total = passed + good, total + 1
                show(f"{shape:<8} {n:5d} {sd:4.1f} {by_V:10.2f} {by_truth:10.2f} "
                     f"{'pass' if good else 'FAIL'} {circle[4]} {plane[4]}")
    show(f"{passed} of {total} decided as the truth decides")


class Gated:
    """Two circles under topk, planted: V, and what brute force is made from.

    Parameters
    ----------
    n, active, p, sd, seed
        Rows, atoms a row, columns, noise, and seed of the data.
    nodes : (int, int)
        Nodes an axis of angle and log amplitude.
    """

    def __init__(self, n, active, p, sd, nodes, seed):
        plant = planted_manifolds(
            n, p, ["circle"] * 2, n_active=active, noise_sd=sd, offset=1.0,
            amplitude_sd=LOG_AMPLITUDE_SD, orthogonal=p >= 4, random_state=seed)
        Z = plant.Z - plant.Z.mean(0)
        unit = float(np.sqrt((Z**2).mean()))
        atoms, alpha = [Circle(1), Circle(1)], LOG_AMPLITUDE_SD**-2
        self.V, _, self.note = engine_value(gated_model(Z / unit, unit, atoms, plant, alpha, sd))
        self.rows = GatedRows(Z / unit, atoms, plant.support, alpha, (sd / unit) ** 2, *nodes)
        self.laplace = self.rows.truth(
            self.rows.least_squares(plant.coordinates, plant.amplitudes))
        # V counts the atoms in either order; the truth is that of supports that are given
        self._constant = Z.size * np.log(unit) - self.laplace.log_multiplicity - np.log(2.0)
        self.by_laplace = self.laplace.value + self._constant

    def sampled(self, seed):
        """The truth by importance sampling, and the effective size."""
        drawn = importance(
            self.laplace, [circle_side(block) for block in self.rows.blocks], n=DRAWS,
            value=self.rows.fast_value(self.laplace.likelihood), rounds=ROUNDS, seed=seed)
        return drawn.value + self.rows.log_patterns() + self._constant, drawn.effective_size


def gated_model(Z, unit, atoms, plant, alpha, sd):
    """The model with the planted supports, coordinates and amplitudes."""
    active = int(plant.support[0].sum())
    assignment = get_assignment({"assignment": "topk", "n_active": active}, len(atoms))
    xi = np.concatenate([assignment.start(plant.support, plant.amplitudes), *plant.coordinates], 1)
    size = sum(atom.basis_size for atom in atoms) + 1
    rho = np.array([np.log(alpha), 2.0 * np.log(sd / unit)])
    model = SAEManifoldModel(Z, atoms, [], plant.support, Theta(xi, np.zeros((size, Z.shape[1]))),
                             rho, assignment=assignment, unit=unit)
    return model.with_state(solve_beta(model, model.initial_theta(), rho), rho)


def gates(show, cases, seeds):
    """Two circles under topk against importance sampling."""
    show(f"\n{'gates':<9} {'N':>5} {'sd':>4} {'seed':>4} {'truth':>9} {'V - truth':>10} "
         f"{'laplace':>8} {'next':>7} {'ess':>6} {'params':>6} {'allowed':>7}")
    for active, p, sd, nodes in cases:
        passed = 0
        for seed in seeds:
            one = Gated(GATED_ROWS, active, p, sd, nodes, seed)
            truth, size = one.sampled(seed)
            apart = one.by_laplace - truth
            allowed = 0.3 + 0.01 * one.laplace.n_parameters
            good = bool(abs(one.V - truth) <= allowed and size >= 100)
            passed += good
            show(f"{active} a row   {GATED_ROWS:5d} {sd:4.1f} {seed:4d} {truth:9.3f} "
                 f"{one.V - truth:10.3f} {apart:8.3f} "
                 f"{apart + second_order(one.laplace).total:7.3f} {size:6.0f} "
                 f"{one.laplace.n_parameters:6d} {allowed:7.2f} {'pass' if good else 'FAIL'} "
                 f"{one.note}")
        show(f"{passed} of {len(seeds)} pass")


def more_rows(show, rows, noise, seeds):
    """Rows with two circles each: V against Laplace's method over decoders with exact rows."""
    active, columns, _, nodes = GATES[-1]
    show(f"\n2 a row {'N':>5} {'p':>3} {'sd':>4} {'V - laplace, by seed':>20}")
    for n in rows:
        for p, sd in product((columns, MORE_COLUMNS) if n == rows[0] else (columns,), noise):
            found = [Gated(n, active, p, sd, nodes, seed) for seed in seeds]
            show(f"        {n:5d} {p:3d} {sd:4.1f} "
                 + " ".join(f"{one.V - one.by_laplace:6.2f}" for one in found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rows, one level of noise")
    parser.add_argument("--only", nargs="+", choices=[*SHAPES, "decisions", "gates", "more"],
                        help="some of the topologies or tables")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, noise = (QUICK_ROWS, QUICK_NOISE) if options.quick else (ROWS, NOISE)
    lines = []

    def show(line):
        print(line, flush=True)
        lines.append(line.rstrip())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [name for name in SHAPES if not options.only or name in options.only]
        if names:
            accuracy(show, names, rows, noise, options.seed)
        if not options.only or "decisions" in options.only:
            decisions(show, rows, noise, options.seed)
        seeds = range(options.seed, options.seed + (1 if options.quick else GATED_SEEDS))
        if not options.only or "gates" in options.only:
            gates(show, QUICK_GATES if options.quick else GATES, seeds)
        if not options.only or "more" in options.only:
            more_rows(show, MORE_ROWS[:1] if options.quick else MORE_ROWS, MORE_NOISE, seeds)
    if not options.quick and not options.only:
        TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
