"""Curved atoms against linear dictionaries on held-out rows, all in one run.

`peers_env.md` says how to make the peers' environment; then
`python benchmarks/discovery_peers.py PEERS_PYTHON > benchmarks/results/discovery_peers.txt`, or
with `--data` and `--methods` for a part. Every method runs in a process of its own, one thread,
killed at the limit; what it printed by then counts. For each setting:

- numbers: floats and indices stored for a row (an index only where there is more than one atom).
  The number k of active linear latents is chosen to store as many as reml_sae's coordinates, and
  the next ones.
- EV: share of the variance of held-out rows that the decoded codes explain.
- EV at so many bits a row: floats quantised uniformly, log2(number of atoms) for an index, the
  best split between the two kinds of floats. Budgets are reml_sae's own at 8 and at 4 bits a
  coordinate. "-" where the indices alone, or a bit for each float, do not fit.

Planted EV is that of the noiseless signal: what a method could explain without storing noise.
Subspace methods store a radius too, and so may explain a little of the noise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from discovery_methods import METHODS

from reml_sae.datasets import gaussian_control, planted_manifolds

WIDTHS = {"circle": 2, "plane": 2, "sphere": 3}
FLOATS = {"circle": 1, "plane": 2, "sphere": 2}
CIRCLES = ["circle"]

DATA = {
    "8-circles": ("8 circles in R^64, one a row", 64, CIRCLES * 8, 1, 2000),
    "8-circles-pairs": ("8 circles in R^32, two a row", 32, CIRCLES * 8, 2, 2000),
    "12-circles": ("12 circles in R^8, one a row", 8, CIRCLES * 12, 1, 2400),
    "spheres-circles": ("2 spheres and 2 circles in R^16, one a row", 16,
                        ["sphere", "sphere", "circle", "circle"], 1, 2000),
    "control-circles": ("Gaussian control of rank 2 in R^16, fitted as 4 circles", 16,
                        CIRCLES * 4, 1, 2000),
    "control-plane": ("Gaussian control of rank 2 in R^16, fitted as a plane", 16,
                      ["plane"], 1, 2000),
}
HELD_OUT = 2000


def planted(name, seed):
    """Training and held-out rows, and what the planted signal explains of the latter."""
    _, p, topologies, n_active, n = DATA[name]
    if name.startswith("control"):
        Z = gaussian_control(n + HELD_OUT, p, random_state=seed)
        return Z[:n], Z[n:], float("nan")
    data = planted_manifolds(n + HELD_OUT, p, topologies, n_active=n_active, random_state=seed)
    held_out = data.rows(slice(n, None))
    return data.Z[:n], held_out.Z, held_out.explained_variance


def plan(name):
    """What a method may know of a data set: number and kind of atoms, active atoms, budgets."""
    _, _, topologies, s, _ = DATA[name]
    floats = s * np.mean([FLOATS[t] for t in topologies])
    address = s * np.log2(len(topologies))
    equal = int((floats + (s if len(topologies) > 1 else 0)) // 2)
    return {"fitted": topologies, "widths": [WIDTHS[t] for t in topologies], "n_active": s,
            "ks": [equal, equal + 1, 2 * equal] if equal > 1 else [1, 2],
            "budgets": [float(address + 8 * floats), float(address + 4 * floats)]}


def run(method, python, folder, limit):
    """Rows of a method, and its refusal, failure or timeout in words."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
                                  "MKL_NUM_THREADS")}
    script = Path(__file__).with_name("discovery_methods.py")
    try:
        done = subprocess.run([python, script, method, folder], capture_output=True, text=True,
                              timeout=limit, env={**os.environ, **one})
        out, outcome = done.stdout, ""
        if done.returncode:
            outcome = " ".join((done.stderr.strip().splitlines() or ["no message"])[-1].split())
    except subprocess.TimeoutExpired as stopped:
        out = (stopped.stdout or b"").decode()
        outcome = f"stopped at the limit of {limit} s"
    return [json.loads(line[4:]) for line in out.splitlines() if line.startswith("ROW ")], outcome


def show(row):
    bits = "".join(f"{ev:9.4f}" if np.isfinite(ev) else f"{'-':>9}" for ev in row["at"])
    print(f"{row['label']:<40}{row['numbers']:8.2f}{row['ev']:8.4f}{bits}{row['fit']:9.2f}"
          f"{row['encode']:10.3f}  {row['note']}".rstrip(), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("python", help="Python of the peers' environment")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--limit", type=int, default=240, help="seconds for each method")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.data:
        train, test, truth = planted(name, options.seed)
        given = plan(name)
        print(f"{DATA[name][0]}; {len(train)} training rows; "
              f"planted EV {truth:.4f}".replace("; planted EV nan", ""))
        bits = "".join(f"{f'EV {b:.1f}b':>9}" for b in given["budgets"])
        print(f"{'':<40}{'numbers':>8}{'EV':>8}{bits}{'fit [s]':>9}{'enc. [s]':>10}")
        with tempfile.TemporaryDirectory() as folder:
            for part, Z in (("train", train), ("test", test)):
                np.save(Path(folder) / f"{part}.npy", Z)
            (Path(folder) / "plan.json").write_text(json.dumps(given))
            for method in options.methods:
                python = sys.executable if method == "reml_sae" else options.python
                rows, outcome = run(method, python, folder, options.limit)
                for row in rows:
                    show(row)
                if outcome:
                    print(f"{method:<40}{outcome[:300]}", flush=True)
        print()


if __name__ == "__main__":
    main()
