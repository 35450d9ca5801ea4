"""Fits whose answers no change of the code's shape may move.

`python benchmarks/frozen_fits.py --save before.npz` keeps V, the outer parameters, the codes and
the status of every fit; `python benchmarks/frozen_fits.py --against before.npz` compares, on the
same machine: "same" is the same bits. Without either it prints the figures alone.

The fits hold every assignment, penalties on every target, families with and without a dispersion,
both integrals of the rows, ``topology="auto"``, ``n_atoms="auto"`` and the two mixed models. They
are small: what matters is that each path of the code is walked, not that the answer is
interesting.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles, planted_manifolds
from reml_sae.manifolds import Circle, Euclidean, Interval
from reml_sae.models import Curve, MixedModel, NonlinearMixedModel

Answer = dict[str, np.ndarray]


def sae(Z: np.ndarray, **options: object) -> Answer:
    """What must not change of a fit of an SAE-manifold, its codes of the training rows included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = rs.SAEManifold(**options).fit(Z)
        again = model.encode(Z)
    codes = [model.codes_.assignments, *model.codes_.coordinates]
    return {
        "V": np.array(model.criterion_), "rho": model.rho_,
        "codes": np.concatenate(codes, axis=1),
        "encoded": np.concatenate([again.assignments, *again.coordinates], axis=1),
        "decoders": np.concatenate([atom.coefficients.ravel() for atom in model.atoms_]),
        "iterations": np.array(model.n_iter_), "converged": np.array(model.converged_),
    }


def reml(model: MixedModel | NonlinearMixedModel) -> Answer:
    """What must not change of a mixed model's fit."""
    result = rs.fit_reml(model)
    return {
        "V": np.array(result.criterion), "rho": result.rho, "codes": result.theta.xi,
        "decoders": result.theta.beta, "iterations": np.array(len(result.trace)),
        "converged": np.array(result.converged),
    }


def circles(n_atoms: int, n: int = 150, p: int = 6, **options: object) -> Answer:
    data = planted_circles(n, p, n_atoms, noise_sd=0.1, random_state=1)
    return sae(data.Z, n_atoms=n_atoms, n_init=2, **options)


def shape(name: str, topology: object = None, **options: object) -> Answer:
    data = planted_manifolds(120, 5, [name], noise_sd=0.1, random_state=2)
    return sae(data.Z, n_atoms=1, topology=topology or name, n_init=2, **options)


def superposed(assignment: object, **options: object) -> Answer:
    data = planted_circles(150, 6, 3, n_active=2, noise_sd=0.1, amplitude_sd=0.2, random_state=3)
    return sae(data.Z, n_atoms=3, assignment=assignment, n_init=2, **options)


def penalised(topology: object, *penalties: dict[str, object]) -> Answer:
    rng = np.random.default_rng(4)
    angles = np.linspace(-np.pi, np.pi, 60, endpoint=False)
    frame = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    Z = np.column_stack([2.0 * np.cos(angles), np.sin(angles)]) @ frame.T
    return sae(Z + 0.1 * rng.normal(size=Z.shape), n_atoms=1, topology=topology,
               penalties=list(penalties))


def of_family(family: object, n: int = 120) -> Answer:
    rng = np.random.default_rng(5)
    angles = rng.uniform(-np.pi, np.pi, n)
    eta = np.column_stack([np.cos(angles), np.sin(angles), np.cos(angles + 1.0)])
    draws = {"poisson": lambda: rng.poisson(np.exp(1.0 + eta)),
             "binomial": lambda: rng.binomial(8, 1.0 / (1.0 + np.exp(-2.0 * eta))),
             "student_t": lambda: eta + 0.1 * rng.standard_t(4, eta.shape)}
    kind = family if isinstance(family, str) else family["family"]
    return sae(draws[kind]().astype(float), n_atoms=1, topology="circle", family=family, n_init=2)


def mixed(family: str) -> Answer:
    rng = np.random.default_rng(6)
    g, x = np.repeat(np.arange(12), 8), rng.normal(size=96)
    eta = 0.5 + 0.3 * x + rng.normal(size=12)[g]
    y = eta + 0.5 * rng.normal(size=96) if family == "gaussian" else rng.poisson(np.exp(eta))
    return reml(MixedModel(y, np.column_stack([np.ones(96), x]), groups=g,
                           Z=np.column_stack([np.ones(96), x]), family=family, covariance="full"))


def nonlinear() -> Answer:
    rng = np.random.default_rng(7)
    g, x = np.repeat(np.arange(10), 8), np.tile(np.linspace(0.0, 3.0, 8), 10)
    level = -0.4 + 0.5 * rng.normal(size=10)[g]
    y = level + 2.2 * (1.0 - np.exp(-0.8 * x)) + 0.1 * rng.normal(size=80)
    mean = Curve(lambda level, rise, rate: level + rise * (1.0 - np.exp(-np.exp(rate) * x)))
    return reml(NonlinearMixedModel(y, mean, g, ["level"],
                                    {"level": 0.0, "rise": 2.0, "rate": 0.0}))


PLANE, LINE = Euclidean(2, 1), Euclidean(1, 2)
FITS: dict[str, Callable[[], Answer]] = {
    "1 circle": partial(circles, 1),
    "1 circle, Laplace": partial(circles, 1, integration="laplace"),
    "1 circle, exact curvature": partial(circles, 1, curvature="exact", integration="laplace"),
    "3 circles, softmax": partial(circles, 3),
    "2 circles, topk": partial(circles, 2, assignment="topk"),
    "1 circle, N < p": partial(circles, 1, n=40, p=60),
    "2 of 3 circles, topk": partial(superposed, "topk", n_active=2),
    "3 circles, beta-Bernoulli": partial(superposed, "ordered_beta_bernoulli", n_active=2),
    "3 circles, threshold gate": partial(
        superposed, {"assignment": "threshold_gate", "threshold": 0.5, "width": 0.1}),
    "circle and line, softmax": partial(
        circles, 2, topology=["circle", "linear"], temperature=0.8),
    **{f"1 {name}": partial(shape, name) for name in ("sphere", "torus", "cylinder", "mobius")},
    "1 interval": partial(shape, "interval", Interval(8)),
    "1 plane": partial(shape, "plane"),
    "n_atoms auto": partial(sae, planted_circles(100, 5, 2, noise_sd=0.1, random_state=1).Z,
                            n_atoms="auto", max_atoms=3, n_init=1),
    "topology auto": partial(shape, "circle", "auto"),
    "penalty on coordinates": partial(penalised, PLANE, {"kind": "ard", "latent_dim": 2}),
    "penalty that couples rows": partial(
        penalised, "linear", {"kind": "total_variation", "latent_dim": 1, "eps": 0.1}),
    "penalty on decoders": partial(
        penalised, Circle(2), {"kind": "nuclear_norm", "latent_dim": 5, "eps": 0.3,
                               "target": "decoder"}),
    "penalty on rho": partial(
        penalised, LINE, {"kind": "log_strength_prior", "names": ["log_dispersion"],
                          "mean": -1.0, "sd": 0.5}),
    "annealed": partial(penalised, Circle(2), {
        "kind": "harmonic_roughness", "period": 5, "weight_schedule": {
            "kind": "geometric", "w_start": 8.0, "w_end": 1.0, "rate": 0.5}}),
    "poisson": partial(of_family, "poisson"),
    "binomial": partial(of_family, {"family": "binomial", "n_trials": 8}),
    "student_t": partial(of_family, "student_t", 50),
    "mixed, gaussian": partial(mixed, "gaussian"),
    "mixed, poisson": partial(mixed, "poisson"),
    "nonlinear": nonlinear,
}


def difference(found: Answer, kept: Answer) -> str:
    """Nothing, or how the answers differ."""
    parts = []
    for name, value in found.items():
        other = kept[name]
        if value.shape != other.shape:
            parts.append(f"{name}: shape {other.shape} -> {value.shape}")
        elif not np.array_equal(value, other, equal_nan=True):
            gap = np.nanmax(np.abs(value.astype(float) - other)) / (1.0 + np.nanmax(np.abs(other)))
            parts.append(f"{name}: {gap:.1e}")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--save", type=Path, help="file for the answers")
    parser.add_argument("--against", type=Path, help="file of answers to compare with")
    parser.add_argument("--only", default="", help="fits whose name holds this text")
    options = parser.parse_args()
    kept = dict(np.load(options.against)) if options.against else {}
    saved: Answer = {}
    print(f"{'fit':28} {'V':>12} {'outer':>5} {'conv':>5} {'CPU s':>6}  against what was kept")
    for name, fit in FITS.items():
        if options.only not in name:
            continue
        begun = time.process_time()
        found = fit()
        seconds = time.process_time() - begun
        saved |= {f"{name}/{key}": value for key, value in found.items()}
        verdict = "-"
        if kept:
            verdict = difference(
                found, {key: kept[f"{name}/{key}"] for key in found}) or "same"
        print(f"{name:28} {float(found['V']):12.4f} {int(found['iterations']):5d} "
              f"{bool(found['converged'])!s:>5} {seconds:6.2f}  {verdict}", flush=True)
    if options.save:
        np.savez(options.save, **saved)


if __name__ == "__main__":
    main()
