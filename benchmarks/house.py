"""CPU seconds of the same work in two checkouts, each case in fresh processes by turns.

`python benchmarks/house.py BEFORE AFTER > out.txt`, with the paths of two checkouts. Start-up and
imports are part of every figure but the last, which is of a second fit in its process; V is that of
the fit, where there is one. The last cases are rows like those of months in a sentence encoder: a
circle of two harmonics in noise that varies together.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

FIT = """
import warnings
import numpy as np
import reml_sae as rs
from reml_sae.datasets import load_weekdays, planted_circles
warnings.simplefilter("ignore")
{rows}
model = rs.SAEManifold(n_atoms={k}, topology=rs.manifolds.Circle({h}), noise="{noise}",
                       random_state=0)
print(model.fit(Z).criterion_)
"""
AGAIN = """
import time
begun = time.process_time()
model.fit(Z)
print(time.process_time() - begun)
"""
MONTHS = """
rng = np.random.default_rng(0)
t = rng.uniform(-np.pi, np.pi, 240)
waves = np.column_stack([np.cos(t), np.sin(t), 0.5 * np.cos(2 * t), 0.5 * np.sin(2 * t)])
frame, strong = (np.linalg.qr(rng.normal(size=(384, q)))[0].T for q in (4, 8))
Z = waves @ frame + 0.05 * rng.normal(size=(240, 384)) + rng.normal(size=(240, 8)) @ strong
"""
PLANTED = {1: (200, 12), 2: (1000, 16), 3: (1000, 16), 8: (2000, 64)}
CASES = {
    **{f"reml-sae {flag}": f"from reml_sae.cli import main; main(['{flag}'])"
       for flag in ("--version", "--help")},
    **{f"planted circles, K = {k}, {n} x {p}": FIT.format(
        k=k, h=1, noise="auto", rows=f"Z = planted_circles({n}, {p}, {k}, noise_sd=0.05).Z")
       for k, (n, p) in PLANTED.items()},
    **{f"{name}, {noise}": FIT.format(k=1, h=2, noise=noise, rows=rows)
       for name, rows in (("weekdays, 140 x 384", "Z = load_weekdays().Z"),
                          ("like months, 240 x 384", MONTHS))
       for noise in ("isotropic", "auto")},
    "like months, isotropic, a second fit": FIT.format(
        k=1, h=2, noise="isotropic", rows=MONTHS) + AGAIN,
}


def run(checkout: Path, code: str) -> tuple[float, str]:
    """CPU seconds of a fresh process, or those that it prints, and its V or nothing."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, **threads, "PYTHONPATH": str(checkout)},
                               cwd=checkout)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{checkout}: the case ended with status {status}")
    if not code.startswith("\n"):
        return usage.ru_utime + usage.ru_stime, ""
    value, *seconds = output.split()
    return float(seconds[0]) if seconds else usage.ru_utime + usage.ru_stime, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()
    print(f"{'case':38} {'before CPU s':>12} {'after CPU s':>12} {'before V':>12} {'after V':>12}")
    for name, code in CASES.items():
        if options.only in name:
            found = [run(path.resolve(), code) for path in (options.before, options.after)]
            seconds = " ".join(f"{cpu:12.2f}" for cpu, _ in found)
            values = " ".join(f"{float(v):12.2f}" if v else " " * 12 for _, v in found)
            print(f"{name:38} {seconds} {values}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
