"""Planted circles: does the fit find them, how well, and how fast?"""

import argparse
import time

import numpy as np
from scipy.optimize import linear_sum_assignment

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.diagnostics import align_angles

BATTERIES = {
    "one-circle": [(200, 12, 1, sd) for sd in (0.02, 0.05, 0.3)],
    "two-circles": [(1000, 16, 2, 0.05)],
    "three-circles": [(1000, 16, 3, 0.05)],
    "eight-circles": [(2000, 64, 8, 0.05)],
}


def phase_error(angles, truth):
    gap = align_angles(angles, truth) - truth
    return np.sqrt(np.mean(np.angle(np.exp(1j * gap)) ** 2))


def match(model, data):
    """Planted atom of every fitted atom, and the accuracy of the labels."""
    k = len(model.atoms_)
    table = np.zeros((k, k))
    np.add.at(table, (model.codes_.assignments.argmax(1), data.labels), 1)
    planted = linear_sum_assignment(-table)[1]
    return planted, table[np.arange(k), planted].sum() / len(data.Z)


def held_out_gap(model, n, p, k, sd, seed):
    """Explained variance of fresh rows less that of who knows every circle and every label."""
    fresh = planted_circles(n, p, k, noise_sd=sd, random_state=seed)
    known = np.zeros_like(fresh.Z)
    for j, frame in enumerate(fresh.frames):
        rows = fresh.labels == j
        local = fresh.Z[rows] @ frame.T
        known[rows] = local / np.linalg.norm(local, axis=1, keepdims=True) @ frame
    total = ((fresh.Z - fresh.Z.mean(0)) ** 2).sum()
    lost = ((fresh.Z - model.predict(fresh.Z)) ** 2).sum()
    return (((fresh.Z - known) ** 2).sum() - lost) / total


def run(n, p, k, sd, seed):
    data = planted_circles(n, p, k, noise_sd=sd, random_state=seed)
    begun = time.perf_counter()
    model = rs.SAEManifold(n_atoms=k).fit(data.Z)
    seconds = time.perf_counter() - begun
    planted, accuracy = match(model, data)
    found, oracle = [], []
    for j, truth in enumerate(planted):
        rows = (data.labels == truth) & model.codes_.gates[:, j]
        angles = data.coordinates[truth][rows, 0]
        local = data.Z[rows] @ data.frames[truth].T
        found.append(phase_error(model.codes_.coordinates[j][rows, 0], angles))
        oracle.append(phase_error(np.arctan2(local[:, 1], local[:, 0]), angles))
    assert (planted_circles(5, p, k, random_state=seed).frames[0] == data.frames[0]).all()
    gap = held_out_gap(model, 1999, p, k, sd, seed)
    # against the noise-free signal: what the fit recovers, which overfitting cannot raise
    error = ((model.predict(data.Z) - data.signal) ** 2).mean() / sd**2
    return (model.converged_, accuracy, model.score(data.Z), data.explained_variance,
            error, float(np.max(np.array(found) / oracle)), np.sqrt(model.dispersion_), gap,
            seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("battery", choices=BATTERIES)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    print("   N   p  K    sd seed conv accuracy      EV planted signal-MSE/sd^2 "
          "phase/oracle noise-sd held-out EV - oracle  seconds")
    for n, p, k, sd in BATTERIES[options.battery]:
        rows = []
        for seed in range(options.seeds):
            row = run(n, p, k, sd, seed)
            rows.append(row)
            conv, accuracy, ev, truth, error, ratio, noise, gap, seconds = row
            print(f"{n:4d} {p:3d} {k:2d}  {sd:.2f} {seed:4d} {conv!s:>4} {accuracy:8.4f} "
                  f"{ev:7.4f} {truth:7.4f} {error:15.4f} {ratio:12.3f} {noise:8.4f} "
                  f"{gap:20.4f} {seconds:8.2f}",
                  flush=True)
        table = np.array(rows, float)
        print(f"  all converged {bool(table[:, 0].all())}, lowest accuracy "
              f"{table[:, 1].min():.4f}, "
              f"EV - planted in [{(table[:, 2] - table[:, 3]).min():.4f}, "
              f"{(table[:, 2] - table[:, 3]).max():.4f}], worst phase / oracle "
              f"{table[:, 5].max():.3f}, held-out EV - oracle in [{table[:, 7].min():.4f}, "
              f"{table[:, 7].max():.4f}], median seconds {np.median(table[:, 8]):.2f}")


if __name__ == "__main__":
    main()
