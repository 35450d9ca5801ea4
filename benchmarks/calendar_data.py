"""Calendar activations of a sentence encoder: circles against PCA on held-out rows.

PCA with c components and its mean has (c + 1) p parameters, a circle of H harmonics (2H + 1) p:
the same number at c = 2H. PCA then spends 2H numbers on the code of a row, the circle one angle.

Then V by kind of noise and number of harmonics, with the log-likelihood of held-out rows beside it
(nats a row, the angle integrated out on a grid): both should rank the models alike. Diagonal noise
is that of principal axes, whose directions it has for nothing; a factor's are charged for.

`--orders` says in its place whether V knows the order of the dates: fits begun at the calendar and
at the orders in which EM of the mixture (`relaxations/order`) finds the most evidence, with their V
and the log density of all held-out rows, less those of the first. Standard errors are of the sum
over rows of what they have (Vuong 1989), those of V by the rows that are fitted.
"""

import argparse
import time

import numpy as np
from known_start import fit_from
from scipy.special import logsumexp
from sklearn.decomposition import PCA

import reml_sae as rs
from reml_sae.datasets import load_dates, load_weekdays
from reml_sae.diagnostics import align_angles, circular_correlation
from reml_sae.discovery.starts.protocol import on_one_atom
from reml_sae.relaxations.order import other_orders
from reml_sae.relaxations.policy import OrderPolicy

NOISE_AXES = 20
"""Principal axes on which kinds of noise are compared: with more, a factor has as many parameters
as the 105 weekdays have entries."""
MOST_SECONDS = 60.0
ORDERS, ORDERED_HARMONICS = 6, 6


def held_rows(data):
    """Which rows (N,) are held out: a quarter."""
    return np.random.default_rng(0).permutation(len(data.Z)) % 4 == 0


def phase_error(angles, truth):
    gap = align_angles(angles, truth) - truth
    return np.degrees(np.median(np.abs(np.angle(np.exp(1j * gap)))))


def explained(Z, prediction, mean):
    return 1.0 - ((Z - prediction) ** 2).sum() / ((Z - mean) ** 2).sum()


def weekdays():
    data = load_weekdays()
    truth = 2 * np.pi * np.arange(7) / 7
    print("weekdays, one circle, template means removed, N = 140, p = 384")
    print("  H           V     EV  order                    circular correlation  seconds")
    for h in (1, 2, 3, 4):
        begun = time.perf_counter()
        model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(h)).fit(data.Z)
        seconds = time.perf_counter() - begun
        angles = align_angles(model.codes_.coordinates[0][:, 0], data.phase)
        means = np.array([np.angle(np.exp(1j * angles[data.labels == day]).mean())
                          for day in range(7)])
        order = np.argsort(np.mod(means - means[0] + 1e-9, 2 * np.pi)).tolist()
        print(f"  {h} {model.criterion_:11.1f} {model.score(data.Z):6.3f}  {order!s:<24} "
              f"{circular_correlation(means, truth):20.3f} {seconds:8.2f}", flush=True)


def dates():
    data = load_dates()
    held = held_rows(data)
    train, test, phase = data.Z[~held], data.Z[held], data.phase[held]
    mean = train.mean(axis=0)
    print(f"\ndates, one circle, {len(train)} rows to fit, {len(test)} held out, p = 384")
    print("  H           V  EV fit  EV held out  phase error  PCA(2H) EV  PCA(1) EV  "
          "PCA phase error  seconds")
    for h in (1, 2, 4, 6, 8):
        begun = time.perf_counter()
        model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(h)).fit(train)
        seconds = time.perf_counter() - begun
        angles = model.encode(test).coordinates[0][:, 0]
        pca = {c: PCA(c).fit(train) for c in {1, 2, 2 * h}}
        held_out = {c: explained(test, fit.inverse_transform(fit.transform(test)), mean)
                    for c, fit in pca.items()}
        scores = pca[2].transform(test)
        flat = np.arctan2(scores[:, 1], scores[:, 0])
        print(f"  {h} {model.criterion_:11.1f} {model.score(train):7.3f} "
              f"{explained(test, model.predict(test), mean):12.3f} "
              f"{phase_error(angles, phase):8.1f} deg {held_out[2 * h]:11.3f} {held_out[1]:10.3f} "
              f"{phase_error(flat, phase):13.1f} "
              f"deg {seconds:8.2f}{'' if model.converged_ else '  not converged'}", flush=True)


def log_likelihood(model, rows):
    """Mean over rows of the log density, their angle integrated out."""
    return float(log_densities(model, rows).mean())


def log_densities(model, rows):
    """Of every row, its angle integrated out."""
    grid = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    covariance = model.dispersion_ * model.noise_.shape
    root = np.linalg.cholesky(covariance)
    points = np.linalg.solve(root, model.atoms_[0].curve(grid).T).T
    white = np.linalg.solve(root, rows.T).T
    squares = (white**2).sum(1)[:, None] + (points**2).sum(1) - 2.0 * white @ points.T
    constant = np.log(np.diag(root)).sum() + 0.5 * rows.shape[1] * np.log(2.0 * np.pi)
    return logsumexp(-0.5 * squares, axis=1) - np.log(len(grid)) - constant


def noises(name, data):
    """V and what held-out rows say, by noise and harmonics, on the leading axes of the others."""
    held = held_rows(data)
    train, test = data.Z[~held], data.Z[held]
    mean = train.mean(axis=0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:NOISE_AXES].T
    train, test = (train - mean) @ axes, (test - mean) @ axes
    print(f"\n{name}, one circle by kind of noise, {len(train)} rows to fit, {len(test)} held out, "
          f"{NOISE_AXES} leading axes")
    print("  H  noise      rank          V  held-out log-likelihood  correlation  seconds")
    for h in (1, 2, 3):
        for noise in ("isotropic", "diagonal", "factor"):
            begun = time.perf_counter()
            model = rs.SAEManifold(n_atoms=1, topology=rs.manifolds.Circle(h), noise=noise,
                                   max_time=MOST_SECONDS).fit(train)
            seconds = time.perf_counter() - begun
            angles = model.codes_.coordinates[0][:, 0]
            print(f"  {h}  {noise:<10} {getattr(model.noise_, 'rank', 0):4d} "
                  f"{model.criterion_:10.1f} {log_likelihood(model, test):24.2f} "
                  f"{abs(circular_correlation(angles, data.phase[~held])):12.3f} {seconds:8.1f}"
                  f"{'' if model.converged_ else '  not converged'}", flush=True)


def orders(noise):
    """V and held-out rows at the order of the calendar, and at others."""
    data, topology = load_dates(), rs.manifolds.Circle(ORDERED_HARMONICS)
    held = held_rows(data)
    train, test, phase = data.Z[~held], data.Z[held], data.phase[~held]
    print(f"\ndates, {len(train)} rows to fit, {len(test)} held out, H = {ORDERED_HARMONICS}, "
          f"{noise} noise\n{'begun at':<10}{'V':>9}{'se':>7}{'held out':>10}{'se':>7}"
          f"{'correlation':>13}")
    first, seen = None, []
    starts = [("calendar", phase[:, None])]
    for seed in range(ORDERS):
        rng = np.random.default_rng(seed)
        policy = OrderPolicy(seeds=4 * (seed % 2))
        starts += [(f"order {seed}", t) for t in other_orders(
            train - train.mean(axis=0), topology, rng.permutation(phase)[:, None],
            noise == "isotropic", rng, policy)[:1]]
    for name, t in starts:
        model, _ = fit_from(train, on_one_atom(t), topology=topology, noise=noise)
        if any(abs(model.criterion_ - value) < 0.1 for value in seen):
            continue
        seen.append(model.criterion_)
        found = log_densities(model, train), log_densities(model, test)
        first = found if first is None else first
        own, apart = (mine - calendar for mine, calendar in zip(found, first, strict=True))
        correlation = abs(circular_correlation(model.codes_.coordinates[0][:, 0], phase))
        print(f"{name:<10}{seen[-1] - seen[0]:9.1f}{own.std() * np.sqrt(len(own)):7.1f}"
              f"{apart.sum():10.1f}{apart.std() * np.sqrt(len(apart)):7.1f}{correlation:13.2f}"
              f"{'' if model.converged_ else '  not converged'}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--orders", action="store_true", help="does V know that of the dates?")
    if parser.parse_args().orders:
        orders("isotropic")
        orders("diagonal")
        return
    weekdays()
    dates()
    noises("weekdays", load_weekdays())
    noises("dates", load_dates())


if __name__ == "__main__":
    main()
