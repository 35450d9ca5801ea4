"""V and CPU seconds of rows that are fitted as one ring, by all of a battery's data.

`python benchmarks/one_ring.py --save before.npz` keeps V of every fit; `python
benchmarks/one_ring.py --against before.npz` compares: a V that is higher by more than .01 nats is
marked. Seconds are of the processor and of the fit alone.

Rings of one to three harmonics, those that wind twice or three times about their centre, intervals
and lines of which a circle was asked, rows like months and weekdays of a sentence encoder, noise
without a curve, isotropic noise and the kind that V chooses.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import reml_sae as rs
from reml_sae.datasets import load_dates, load_weekdays
from reml_sae.manifolds import Circle

HIGHER = 0.01
"""Nats by which V counts as higher."""
WAVES = {
    "plane": (1.0,), "two": (1.0, 0.5), "three": (1.0, 0.6, 0.4),
    "wound twice": (0.3, 1.0), "wound thrice": (0.25, 0.3, 1.0), "clover": (0.2, 0.1, 1.0),
}
"""Amplitudes of the harmonics of rings."""


def ring(
    waves: tuple[float, ...], n: int, p: int, noise: float, seed: int, factors: int = 0
) -> np.ndarray:
    """Rows (n, p) on a ring in white noise, and in factors of unit variance beside it."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-np.pi, np.pi, (n, 1))
    h = np.arange(1, len(waves) + 1)
    curve = np.hstack([np.array(waves) * np.cos(h * t), np.array(waves) * np.sin(h * t)])
    frame = np.linalg.qr(rng.normal(size=(max(p, 2 * len(waves)), p)))[0][: 2 * len(waves)]
    if p < 2 * len(waves):
        frame = rng.normal(size=(2 * len(waves), p)) / np.sqrt(p)
    Z = curve @ frame + noise * rng.normal(size=(n, p))
    if factors:
        strong = np.linalg.qr(rng.normal(size=(p, factors)))[0].T
        Z += rng.normal(size=(n, factors)) @ strong
    return Z


def line(n: int, p: int, bend: float, noise: float, seed: int) -> np.ndarray:
    """Rows (n, p) on a bent line."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-1.0, 1.0, (n, 1))
    frame = np.linalg.qr(rng.normal(size=(p, 3)))[0].T
    curve = np.hstack([t, bend * t**2, bend * np.sin(3.0 * t)])
    return curve @ frame + noise * rng.normal(size=(n, p))


def cases() -> Iterator[tuple[str, np.ndarray, int, str]]:
    """Name, rows, harmonics that are asked for, and kind of noise."""
    for name, waves in WAVES.items():
        h = len(waves)
        for n, p, noise, seed in ((50, max(3, h), 0.05, 0), (200, 12, 0.1, 1), (500, 30, 0.2, 2)):
            yield f"{name}, {n} x {p}", ring(waves, n, p, noise, seed), h, "isotropic"
        yield f"{name}, 120 x 8, auto", ring(waves, 120, 8, 0.15, 3), h, "auto"
    for seed in range(2):
        Z = ring(WAVES["wound twice"], 200, 40, 0.1, 10 + seed, factors=3)
        for noise in ("isotropic", "auto"):
            yield f"wound amid factors, {seed}, {noise}", Z, 2, noise
    for seed in range(4):
        Z = ring(WAVES["plane"], 40, 4, 0.15, 30 + seed, factors=1)
        yield f"few amid a factor, {seed}, auto", 1.5 * Z, 1, "auto"
        Z = ring(WAVES["two"], 80, 6, 0.1, 40 + seed, factors=1)
        yield f"two amid a factor, {seed}, factor", Z, 2, "factor"
    for h in (2, 3):
        yield f"plane, {h} asked", ring(WAVES["plane"], 200, 12, 0.1, 4), h, "isotropic"
        yield f"line, {h} asked", line(200, 10, 0.0, 0.1, 5), h, "isotropic"
        yield f"bent line, {h} asked", line(200, 10, 0.7, 0.05, 6), h, "isotropic"
    yield "bent line, auto", line(120, 6, 0.7, 0.1, 7), 2, "auto"
    yield "white noise", np.random.default_rng(8).normal(size=(200, 5)), 1, "isotropic"
    for seed in range(2):
        small = ring(WAVES["two"], 120, 64, 0.05, 20 + seed, factors=4)
        large = ring(WAVES["two"], 240, 384, 0.05, seed, factors=8)
        for noise in ("isotropic", "auto"):
            yield f"small months {seed}, {noise}", small, 2, noise
            yield f"months {seed}, {noise}", large, 2, noise
    weekdays, dates = load_weekdays().Z, load_dates().Z
    for h, noise in ((1, "isotropic"), (2, "isotropic"), (3, "isotropic"), (2, "auto")):
        yield f"weekdays, {h}, {noise}", weekdays, h, noise
    yield "dates, 2, isotropic", dates, 2, "isotropic"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()
    before = dict(np.load(options.against)) if options.against else {}
    found, seconds, higher = {}, 0.0, 0
    print(f"{'case':34} {'V':>12} {'CPU s':>7}" + (f" {'change':>10}" if before else ""))
    for name, Z, h, noise in cases():
        if options.only not in name:
            continue
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = rs.SAEManifold(n_atoms=1, topology=Circle(h), noise=noise, random_state=0)
            V = model.fit(Z).criterion_
        spent = time.process_time() - begun
        seconds += spent
        line = f"{name:34} {V:12.4f} {spent:7.2f}"
        if name in before:
            change = V - float(before[name][0])
            higher += change > HIGHER
            line += f" {change:10.4f} from {float(before[name][1]):6.2f} s" + (
                "  HIGHER" if change > HIGHER else "")
        print(line, flush=True)
        found[name] = np.array([V, spent])
        if options.save:
            np.savez(options.save, **found)
    print(f"{len(found)} fits, {seconds:.1f} CPU s" + (f", {higher} higher" if before else ""))


if __name__ == "__main__":
    main()
