"""The direct peer on the same planted circles, as a ratio within one run.

Make a scratch environment with the peer (`pip install gamfit`) and name its Python:
`python benchmarks/peers.py /path/to/scratch/bin/python`. The peer runs in its own process with a
limit of seconds; only its fit is timed.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles

PEER = """
import sys, time, numpy as np
from gamfit.sae import sae_manifold_fit
Z = np.load(sys.argv[1])
begun = time.perf_counter()
try:
    sae_manifold_fit(Z, K=int(sys.argv[2]), d_atom=1, atom_topology="circle", random_state=0)
    outcome = "a model"
except Exception as error:
    outcome = "refused: " + " ".join(str(error).split())[:90]
print(f"{time.perf_counter() - begun:.2f}|{outcome}")
"""


def peer(python, Z, k, limit):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Z.npy"
        np.save(path, Z)
        try:
            found = subprocess.run([python, "-c", PEER, str(path), str(k)], capture_output=True,
                                   text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return float(limit), f"no answer in {limit} s"
    if not found.stdout.strip():
        return float("nan"), "failed: " + found.stderr.strip().splitlines()[-1][:90]
    seconds, _, outcome = found.stdout.strip().splitlines()[-1].partition("|")
    return float(seconds), outcome


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("python", help="Python of an environment with gamfit")
    parser.add_argument("--limit", type=int, default=240)
    options = parser.parse_args()
    print("   N   p  K    sd   ours [s]  EV - planted   gamfit [s]   ratio  gamfit's outcome")
    for n, p, k, sd in ((200, 12, 1, 0.05), (200, 12, 1, 0.3), (1000, 16, 2, 0.05)):
        data = planted_circles(n, p, k, noise_sd=sd)
        begun = time.perf_counter()
        model = rs.SAEManifold(n_atoms=k).fit(data.Z)
        ours = time.perf_counter() - begun
        theirs, outcome = peer(options.python, data.Z, k, options.limit)
        print(f"{n:4d} {p:3d} {k:2d}  {sd:.2f} {ours:10.2f} "
              f"{model.score(data.Z) - data.explained_variance:13.4f} {theirs:12.2f} "
              f"{theirs / ours:7.0f}  {outcome}", flush=True)


if __name__ == "__main__":
    main()
