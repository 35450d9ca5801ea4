"""The number of harmonics that V chooses against fits of every number, on planted curves.

A curve of H harmonics in R^12, harmonic h of amplitude 1 / h in a plane of its own, with noise of
standard deviation .05 to .3, 200 to 1000 rows. "reached" are fits whose V is no more than .1 nats
above the lowest of those with 1 to 6 harmonics given; "planted" those whose number is the planted
one, 2 standing for 1: V does not tell them apart where the roughness shuts the second harmonic out.
"""

import time

import numpy as np

import reml_sae as rs
from reml_sae.manifolds import Circle

SEEDS, P, MOST = 20, 12, 6
SDS, ROWS = (0.05, 0.1, 0.2, 0.3), (200, 300, 500, 1000)


def plant(n_harmonics, n, sd, rng):
    h = np.arange(1, n_harmonics + 1)
    frame = np.linalg.qr(rng.normal(size=(P, 2 * n_harmonics)))[0].T
    phase = np.outer(rng.uniform(-np.pi, np.pi, n), h)
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=2) / h[:, None]
    return waves.reshape(n, -1) @ frame + sd * rng.normal(size=(n, P))


def fit(Z, topology):
    begun = time.process_time()
    model = rs.SAEManifold(n_atoms=1, topology=topology, n_init=1).fit(Z)
    return model, time.process_time() - begun


def main():
    fit(plant(1, 200, 0.1, np.random.default_rng(0)), "circle")  # what is computed once
    print(f"V chooses the harmonics, {SEEDS} seeds each")
    print("  H  reached  planted  worst gap  numbers found (times)          "
          "CPU s  of 2 given  of 1 to 6 given")
    totals = np.zeros(2)
    for planted in range(1, MOST):
        gaps, found, seconds = [], [], np.zeros(3)
        for seed in range(SEEDS):
            rng = np.random.default_rng(100 * planted + seed)
            Z = plant(planted, ROWS[seed % len(ROWS)], SDS[seed // len(ROWS) % len(SDS)], rng)
            model, spent = fit(Z, "circle")
            given = [fit(Z, Circle(h)) for h in range(1, MOST + 1)]
            found.append(model.atoms_[0].topology.n_harmonics)
            gaps.append(model.criterion_ - min(other.criterion_ for other, _ in given))
            seconds += spent, given[1][1], sum(own for _, own in given)
        reached, right = np.sum(np.array(gaps) <= 0.1), found.count(max(planted, 2))
        times = ", ".join(f"{h} ({found.count(h)})" for h in sorted(set(found)))
        totals += reached, right
        print(f"  {planted} {reached:8d} {right:8d} {max(gaps):10.2f}  {times:<30}"
              f"{seconds[0] / SEEDS:6.2f} {seconds[1] / SEEDS:11.2f} {seconds[2] / SEEDS:16.2f}",
              flush=True)
    share = totals / (SEEDS * (MOST - 1))
    print(f"all {share[0]:7.0%} {share[1]:8.0%}")


if __name__ == "__main__":
    main()
