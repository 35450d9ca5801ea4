"""The manifold superposition toy of block-sparse featurizers (arXiv 2606.25234): what is recovered.

`python benchmarks/superposition.py [--sizes small micro] [--arms ours ..] [--variant uneven]`

`reml_sae.datasets.superposed_manifolds` says what is planted. Every factor takes the one atom whose
gate correlates best with its presence, and scores R^2 of that atom's contribution, centre and all,
on the rows where it is present; "recovery" is the mean over factors. Arms:

- ours: kinds of the factors given, the rest as it comes. A segment is a line: beside an amplitude
  an interval has one place too many.
- auto: the number of factors given, topology="auto".
- topk: dictionary by orthogonal matching pursuit on scikit-learn's MiniBatchDictionaryLearning; as
  many latents as the factors are wide together.
- block topk: `relaxations.block_dictionary`, frames as wide as the factors.
- k-subspaces, analysers: one subspace of three dimensions a row about a centre of its own, as many
  as factors: alternating, and a mixture of factor analysers (of one noise) by EM from there.
- oracle: least squares of the factors' own spans on the planted support.

Variant "uneven" has frequencies as 1 / rank, log amplitudes of standard deviation .25 and noise of
length .25, where a factor has one.

"numbers" is what an active atom stores: coordinates and amplitude of ours, scores of the others.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning

import reml_sae as rs
from reml_sae.datasets import Superposition, superposed_manifolds
from reml_sae.relaxations.dictionary import block_dictionary
from reml_sae.relaxations.policy import BlockPolicy

SIZES = {"small": (1500, 24, 6, 2), "micro": (3000, 48, 12, 3)}
ATOMS = {"segment": "linear", "circle": "circle", "disk": "plane", "sphere": "sphere",
         "torus": "torus", "mobius": "mobius", "swiss_roll": "interval", "helix": "interval"}
WIDTHS = {"segment": 1, "circle": 2, "disk": 2}


class Parts(NamedTuple):
    """Gates (N, L) and contributions, L functions of the rows' indices, of what was fitted."""

    gates: np.ndarray
    contribution: Callable[[int, np.ndarray], np.ndarray]
    numbers: float
    note: str = ""


def scores(data: Superposition, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """R^2 of every factor, and the correlation of its gate with its presence."""
    gates = parts.gates - parts.gates.mean(axis=0)
    planted = data.support - data.support.mean(axis=0)
    norms = np.linalg.norm(planted, axis=0)[:, None] * np.linalg.norm(gates, axis=0)
    matches = planted.T @ gates / np.maximum(norms, 1e-300)
    out = []
    for k, truth in enumerate(data.contributions):
        found = parts.contribution(int(matches[k].argmax()), np.flatnonzero(data.support[:, k]))
        out.append(1.0 - ((truth - found) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum())
    return np.array(out), matches.max(axis=1)


def ours(data: Superposition, seed: int, limit: float) -> Parts:
    """An SAE-manifold with the kinds of the factors given."""
    return _ours(data, seed, limit, [ATOMS[kind] for kind in data.kinds])


def auto(data: Superposition, seed: int, limit: float) -> Parts:
    """An SAE-manifold that chooses the kinds."""
    return _ours(data, seed, limit, "auto")


def _ours(data: Superposition, seed: int, limit: float, topology: str | list[str]) -> Parts:
    model = rs.SAEManifold(
        n_atoms=len(data.kinds), topology=topology,
        assignment="topk", n_active=int(data.support[0].sum()), random_state=seed,
        max_time=limit).fit(data.Z)
    codes = model.codes_

    def contribution(k: int, rows: np.ndarray) -> np.ndarray:
        atom = model.atoms_[k]
        basis = codes.assignments[rows, k, None] * atom.topology.basis(codes.coordinates[k][rows])
        basis[:, 0] = 1.0  # an amplitude scales the shape about its centre
        return np.where(codes.gates[rows, k, None], basis @ atom.coefficients, 0.0)

    sizes = np.array([t.shape[1] + 1 for t in codes.coordinates])
    return Parts(codes.gates, contribution, float((codes.gates @ sizes).sum() / codes.gates.sum()),
                     " ".join(atom.topology.name for atom in model.atoms_) * (topology == "auto")
                 + ("" if model.converged_ else f" {model.message_}"))


def topk(data: Superposition, seed: int, _: float) -> Parts:
    """A sparse linear dictionary."""
    width = sum(WIDTHS.get(kind, 3) for kind in data.kinds)
    active = int(np.ceil(data.support[0].sum() * width / len(data.kinds)))
    learner = MiniBatchDictionaryLearning(
        width, transform_algorithm="omp", transform_n_nonzero_coefs=active, random_state=seed)
    codes = learner.fit_transform(data.Z)
    return Parts(codes != 0.0,
                 lambda k, rows: codes[rows, k, None] * learner.components_[k], 1.0)


def block_topk(data: Superposition, seed: int, _: float) -> Parts:
    """A block-sparse dictionary with the widths of the factors given."""
    widths = [WIDTHS.get(kind, 3) for kind in data.kinds]
    start = block_dictionary(data.Z, widths, int(data.support[0].sum()), 3,
                             np.random.default_rng(seed), BlockPolicy(), exact=True, tell=True)[0]
    used = np.asarray(start.support, float)
    return Parts(start.support, lambda k, rows: start.scores[k][rows] @ start.frames[k],
                 float((used @ np.array(widths)).sum() / used.sum()))


def k_subspaces(data: Superposition, seed: int, _: float) -> Parts:
    """One affine subspace a row."""
    centres, axes, labels = _subspaces(data.Z, len(data.kinds), seed)
    return Parts(np.eye(len(centres))[labels],
                 lambda k, rows: centres[k] + (data.Z[rows] - centres[k]) @ axes[k].T @ axes[k],
                 float(axes.shape[1]))


def _subspaces(Z: np.ndarray, K: int, seed: int, q: int = 3, sweeps: int = 40
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, axes = Z[rng.choice(len(Z), K, replace=False)], np.zeros((K, q, Z.shape[1]))
    for sweep in range(sweeps):
        away = Z - centres[:, None]
        labels = ((away**2).sum(axis=2) - ((away @ axes.swapaxes(1, 2))**2).sum(axis=2)).argmin(0)
        for k in range(K):
            own = Z[labels == k] if (labels == k).sum() > q else Z[rng.choice(len(Z), 4 * q)]
            centres[k] = own.mean(axis=0)
            if sweep > 2:
                axes[k] = np.linalg.svd(own - centres[k], full_matrices=False)[2][:q]
    return centres, axes, labels


def analysers(data: Superposition, seed: int, _: float) -> Parts:
    """A mixture of factor analysers of one noise; a row's part is its posterior mean in each."""
    Z, K, p = data.Z, len(data.kinds), data.Z.shape[1]
    centres, axes, labels = _subspaces(Z, K, seed)
    shares, phi = np.eye(K)[labels], 0.1 * float(Z.var())
    q = axes.shape[1]
    variances = np.ones((K, q))
    for _ in range(100):
        weight = np.maximum(shares.sum(axis=0), 1e-9)
        left = 0.0
        for k in range(K):
            centres[k] = shares[:, k] @ Z / weight[k]
            away = Z - centres[k]
            values, vectors = np.linalg.eigh((shares[:, k, None] * away).T @ away / weight[k])
            axes[k], variances[k] = vectors[:, ::-1][:, :q].T, values[::-1][:q]
            left += weight[k] * float(values[:-q].sum())
        phi = max(left / (len(Z) * (p - q)), 1e-6 * float(Z.var()))
        variances = np.maximum(variances, phi)
        away = Z - centres[:, None]
        inside = (away @ axes.swapaxes(1, 2)) ** 2
        score = -0.5 * (((away**2).sum(axis=2) - inside.sum(axis=2)) / phi
                        + (inside / variances[:, None]).sum(axis=2)
                        + np.log(variances / phi).sum(axis=1)[:, None]).T + np.log(weight)
        shares = np.exp(score - score.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)

    def contribution(k: int, rows: np.ndarray) -> np.ndarray:
        kept = (1.0 - phi / variances[k])[:, None] * axes[k]
        return shares[rows, k, None] * (centres[k] + (Z[rows] - centres[k]) @ axes[k].T @ kept)

    return Parts(shares, contribution, float(q))


def oracle(data: Superposition, seed: int, _: float) -> Parts:
    """The planted support and the spans of the factors; the scores alone are fitted."""
    frames = [np.linalg.svd(truth, full_matrices=False)[2][:WIDTHS.get(kind, 3)]
              for kind, truth in zip(data.kinds, data.contributions, strict=True)]
    out = np.zeros((len(frames), *data.Z.shape))
    patterns, labels = np.unique(data.support, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        own, rows = np.flatnonzero(pattern), np.flatnonzero(labels == number)
        basis = np.concatenate([frames[k] for k in own])
        found = np.linalg.lstsq(basis.T, data.Z[rows].T, rcond=None)[0].T
        for k, y in zip(own, np.split(found, np.cumsum([len(frames[k]) for k in own])[:-1], axis=1),
                        strict=True):
            out[k, rows] = y @ frames[k]
    sizes = data.support @ np.array([len(frame) for frame in frames])
    return Parts(data.support, lambda k, rows: out[k, rows],
                 float(sizes.sum() / data.support.sum()))


ARMS = {"oracle": oracle, "block topk": block_topk, "topk": topk, "k-subspaces": k_subspaces,
        "analysers": analysers, "ours": ours, "auto": auto}
VARIANTS: dict[str, dict[str, float]] = {
    "even": {}, "uneven": {"decay": 1.0, "amplitude_sd": 0.25, "noise_sd": 0.25}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--variant", choices=VARIANTS, default="even")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a fit of ours may take")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
          f"numpy {np.__version__}")
    for size in options.sizes:
        n, p, k, s = SIZES[size]
        print(f"{size}, {options.variant}: {k} factors in R^{p}, {s} a row, {n} rows")
        for seed in range(options.seeds):
            data = superposed_manifolds(n, p, k, s, random_state=seed, **VARIANTS[options.variant])
            for arm in options.arms:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    begun = time.process_time()
                    parts = ARMS[arm](data, seed, options.limit)
                    seconds = time.process_time() - begun
                values, matches = scores(data, parts)
                each = " ".join(f"{kind}:{value:.2f}/{match:.2f}" for kind, value, match
                                in zip(data.kinds, values, matches, strict=True))
                print(f"  {arm:<12} seed {seed} recovery {values.mean():7.4f}  numbers "
                      f"{parts.numbers:4.2f}  CPU s {seconds:7.1f}  R^2/gate {each}  {parts.note}",
                      flush=True)


if __name__ == "__main__":
    main()
