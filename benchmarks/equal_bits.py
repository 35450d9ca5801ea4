"""Curved atoms against linear dictionaries on real rows: explained variance at equal bits a row.

`python benchmarks/equal_bits.py [--rows 50000] [--held 10000] [--sizes 64] [--arms axes ..]`

Rows are token states of a sentence encoder over docstrings (`minilm_tokens.py`); those held out
are of docstrings of their own, and scores are theirs, about the mean of the others. A code is an
address and numbers, each in the range of its atom; of all splits of the bits within a budget the
best is shown (`discovery_codes.py`). Every row has one atom, except under a TopK dictionary:

- circles: `SAEManifold` by sweeps, an angle, or an angle and an amplitude
- auto: the same with topology="auto", of which atoms may be lines and planes
- flats: k-subspaces about centres of their own, so many scores; of none it is k-means
- topk: so many directions of a dictionary, refitted jointly: orthogonal matching pursuit, and a
  dictionary by least squares given the codes
- axes: principal axes of all rows, no address

Sweeps of ours over all rows end after 10 at most in a round, those of the others after 40. "over
flat" are the nats a row by which a circle is above the best flat in its place (`Atom.over_flat`),
as quantiles over atoms, and the mean over rows; "curved" is the share of atoms where it is above
zero.
"""

import argparse
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
from discovery_codes import Coded, linear_decoder, ranges, score
from minilm_tokens import token_states
from scipy.linalg import eigh

import reml_sae as rs

BUDGETS = (12, 16, 24, 32, 48)
SWEEPS, OTHERS = 10, 40
"""Of ours over all rows at most, after every sample, and those of k-subspaces and dictionaries."""
ARMS = ("axes", "flats", "topk", "circles", "auto")


def rows_of(options):
    """Rows to fit and rows held out, about the mean of the first, and how they were made."""
    path = options.cache and Path(options.cache)
    if path and path.is_file():
        kept = np.load(path)
        Z, documents, seconds = kept["Z"], kept["documents"], float(kept["seconds"])
    else:
        begun = time.process_time()
        # the docstring in which those to fit end belongs to them whole
        Z, _, documents = token_states(options.rows + options.held + 128)
        seconds = time.process_time() - begun
        if path:
            np.savez(path, Z=Z, documents=documents, seconds=seconds)
    last = documents[options.rows - 1]
    train, test = Z[:options.rows], Z[documents > last][:options.held]
    mean = train.mean(axis=0, dtype=float).astype(np.float32)
    return train - mean, test - mean, f"{documents.max() + 1} docstrings, {seconds:.0f} CPU s"


def ours(train, test, K, topology):
    """Points, then points and amplitudes, of a fit by sweeps; and the fit."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = rs.SAEManifold(n_atoms=K, topology=topology, assignment="topk", solver="sweeps",
                               max_outer=SWEEPS, random_state=0).fit(train)
    fitted = time.process_time()
    codes = model.encode(test)
    encoded = time.process_time()
    shapes = [atom.topology for atom in model.atoms_]
    dims = np.array([shape.latent_dim for shape in shapes])

    def stored(source):
        points = np.where(np.arange(dims.max()) < dims[source.labels, None], source.points, np.nan)
        return source.labels[:, None], np.column_stack([points, np.log(source.amplitudes)])[:, None]

    index, values = stored(model.codes_)
    low, high = ranges(index, values, K)
    rings = [k for k, shape in enumerate(shapes) if shape.name == "circle"]
    low[rings, 0], high[rings, 0] = -np.pi, np.pi
    counts = np.maximum(np.bincount(index[:, 0], minlength=K), 1)
    typical = np.bincount(index[:, 0], values[:, 0, -1], K) / counts

    def decode(index, values):
        whole = values.shape[2] > dims.max()
        logs = values[:, 0, -1] if whole else typical[index[:, 0]]
        return model.reconstruct(type(codes)(
            codes.labels, np.exp(logs), np.nan_to_num(values[:, 0, :dims.max()]), codes.objective,
            codes.converged, codes.weights, codes.topologies))

    index, values = stored(codes)
    times = fitted - begun, encoded - fitted
    name = "auto" if topology == "auto" else "circles"
    note = (f"{len(model.trace_)} sweeps" + ("" if model.converged_ else ", not converged")
            + f", {len(rings)} circles")
    return model, [
        Coded(f"{name} {K}, points", K, index, values[..., :-1], low[:, :-1], high[:, :-1], decode,
              *times, note=note),
        Coded(f"{name} {K}, and amplitudes", K, index, values, low, high, decode, *times,
              amplitude=True, note=note)]


def leading(X, q):
    """The q leading axes (q, p) of rows about the origin."""
    n, p = X.shape
    if q == 0:
        return np.zeros((0, p))
    if n < p:
        values, vectors = eigh(X @ X.T, subset_by_index=(max(n - q, 0), n - 1))
        axes = vectors.T @ X / np.sqrt(np.maximum(values, 1e-12))[:, None]
        return np.concatenate([axes, np.zeros((q - len(axes), p))])
    return eigh(X.T @ X, subset_by_index=(p - q, p - 1))[1].T


def assigned(X, centres, axes):
    """Flat (n,) that leaves least of each row, what it leaves, and scores (n, q) on it."""
    K, q, p = axes.shape
    rest = (centres**2).sum(axis=1) - 2.0 * X @ centres.T
    within = ((X @ axes.reshape(-1, p).T).reshape(len(X), K, q)
              - np.einsum("kqp,kp->kq", axes, centres))
    rest -= (within**2).sum(axis=2)
    best = rest.argmin(axis=1)
    every = np.arange(len(X))
    return best, rest[every, best] + (X**2).sum(axis=1), within[every, best]


def flats(train, test, K, q):
    """K-subspaces with centres, from k-means++ seeds and a few sweeps of k-means."""
    begun, rng = time.process_time(), np.random.default_rng(0)
    centres = train[rng.choice(len(train), 1)]
    sample = train[rng.choice(len(train), min(len(train), 64 * K), replace=False)]
    left = ((sample - centres[0]) ** 2).sum(axis=1)
    while len(centres) < K:
        new = sample[rng.choice(len(sample), p=left / left.sum())]
        centres = np.concatenate([centres, new[None]])
        left = np.minimum(left, ((sample - new) ** 2).sum(axis=1))
    axes, last = np.zeros((K, q, train.shape[1]), np.float32), np.inf
    for sweep in range(OTHERS):
        labels, rest, scores = assigned(train, centres, axes)
        lost = float(rest.sum(dtype=float))
        if sweep > 5 and last - lost < 1e-4 * lost:
            break
        last = lost
        worst = iter(np.argsort(-rest, kind="stable").reshape(-1, 1)[:K * (q + 2)].reshape(K, -1))
        for k in range(K):
            rows = np.flatnonzero(labels == k)
            own = train[rows if len(rows) > q + 1 else next(worst)].astype(float)
            centres[k] = own.mean(axis=0)
            if sweep > 2:
                axes[k] = leading(own - centres[k], q)
    fitted = time.process_time()
    low, high = ranges(labels[:, None], scores[:, None], K) if q else np.zeros((2, K, 0))
    index, _, values = assigned(test, centres, axes)
    encoded = time.process_time()
    decoder = linear_decoder(axes, 0.0)
    return Coded(f"flats {K} of {q}", K, index[:, None], values[:, None], low, high,
                 lambda index, values: centres[index[:, 0]] + decoder(index, values),
                 fitted - begun, encoded - fitted, note=f"{sweep + 1} sweeps")


def pursued(X, D, s):
    """Orthogonal matching pursuit: directions (n, s) of a dictionary (K, p) and their numbers."""
    gram, pull = D @ D.T, X @ D.T
    rest, index = pull.copy(), np.zeros((len(X), 0), np.intp)
    for _ in range(s):
        np.put_along_axis(rest, index, 0.0, axis=1)
        index = np.column_stack([index, np.abs(rest).argmax(axis=1)])
        inner = gram[index[:, :, None], index[:, None]] + 1e-6 * np.eye(index.shape[1])
        own = np.take_along_axis(pull, index, axis=1)
        values = np.linalg.solve(inner, own[:, :, None])[:, :, 0]
        rest = pull - np.einsum("nj,njk->nk", values, gram[index])
    return index, values


def topk(train, test, K, s):
    """A dictionary of K directions of which rows use s."""
    begun, rng = time.process_time(), np.random.default_rng(0)
    D = train[rng.choice(len(train), K, replace=False)].astype(float)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    for _ in range(OTHERS):
        codes = np.zeros((len(train), K), np.float32)
        index, values = pursued(train, D.astype(np.float32), s)
        np.put_along_axis(codes, index, values.astype(np.float32), axis=1)
        unused = np.flatnonzero((codes != 0.0).sum(axis=0) < 2)
        inner = (codes.T @ codes).astype(float)
        D = np.linalg.solve(inner + 1e-3 * np.eye(K) * np.diag(inner).mean(), codes.T @ train)
        D[unused] = train[rng.choice(len(train), len(unused), replace=False)]
        D /= np.linalg.norm(D, axis=1, keepdims=True)
    index, values = pursued(train, D.astype(np.float32), s)
    fitted = time.process_time()
    low, high = ranges(index, values[:, :, None], K)
    index, values = pursued(test, D.astype(np.float32), s)
    return Coded(f"topk {K}, {s} a row", K, index, values[:, :, None], low, high,
                 linear_decoder(D[:, None], 0.0), fitted - begun, time.process_time() - fitted)


def principal(train, test, q):
    """Scores on the leading axes of all rows."""
    axes = leading(train.astype(float), q)
    low, high = ranges(np.zeros((len(train), 1), int), (train @ axes.T)[:, None], 1)
    return Coded(f"axes {q}", 1, np.zeros((len(test), 1), int), (test @ axes.T)[:, None], low, high,
                 linear_decoder(axes[None], 0.0), 0.0, 0.0)


def show(coded, test):
    """One row of the table."""
    found = score(coded, test, BUDGETS)
    print(f"{found['label']:<32} {found['numbers']:7.0f} {found['ev']:7.4f}  "
          + " ".join("      -" if np.isnan(ev) else f"{ev:7.4f}" for ev in found["at"])
          + f" {found['fit']:8.1f} {found['encode']:8.1f}  {found['note']}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--held", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cache", help="file that keeps the token states")
    options = parser.parse_args()
    train, test, made = rows_of(options)
    print(f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
          f"numpy {np.__version__}")
    print(f"token states of all-MiniLM-L6-v2, last layer, {made}; {len(train)} rows to fit, "
          f"{len(test)} held out, p = {train.shape[1]}")
    print(f"{'':<32} numbers      EV  " + " ".join(f"{b:4d} b " for b in BUDGETS)
          + "    fit s encode s  (CPU)")
    for q in (2, 4, 8) if "axes" in options.arms else ():
        show(principal(train, test, q), test)
    for K in options.sizes:
        for q in (0, 1, 2, 3, 4) if "flats" in options.arms else ():
            show(flats(train, test, K, q), test)
        for s in (1, 2, 4) if "topk" in options.arms else ():
            show(topk(train, test, K, s), test)
        for topology in (rs.manifolds.Circle(1), "auto"):
            if ("auto" if topology == "auto" else "circles") in options.arms:
                model, every = ours(train, test, K, topology)
                for coded in every:
                    show(coded, test)
                show_rises(model, K)


def show_rises(model, K):
    """What circles are worth over flats."""
    over = np.array([atom.over_flat for atom in model.atoms_], float)  # none of a flat
    counts = np.bincount(model.codes_.labels, minlength=K)
    known = np.isfinite(over)
    if not known.any():
        return
    print(f"circles {K} over flat: quantiles 0 .1 .5 .9 1: "
          + " ".join(f"{x:.2f}" for x in np.quantile(over[known], [0.0, 0.1, 0.5, 0.9, 1.0]))
          + f"; mean over rows {np.average(over[known], weights=counts[known]):.2f}; curved "
          f"{np.mean(over[known] > 0.0):.2f} of {known.sum()} atoms", flush=True)


if __name__ == "__main__":
    main()
