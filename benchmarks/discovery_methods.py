"""The methods of `discovery_peers.py`, each run by itself in the interpreter that has it.

`python discovery_methods.py METHOD FOLDER` reads train.npy, test.npy and plan.json from the folder
and prints one line of JSON for each setting that it tried. A method hands back `Coded`: for every
test row the atoms it uses and the numbers it stores, and the function that decodes these.
"""

import dataclasses
import json
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from discovery_codes import Coded, dense_codes, explained, linear_decoder, ranges, score

LATENTS = {"5 a planted atom": 5, "16 a planted atom": 16, "32 a planted atom": 32}


# --- ours ----------------------------------------------------------------------------------------

def packed(name, t):
    """Stored columns of coordinates and their bounds, where the topology gives them."""
    if name in ("circle", "torus"):
        return t, [(-np.pi, np.pi)] * t.shape[1]
    if name in ("sphere", "projective_plane"):
        if name == "projective_plane":
            t = np.where(t[:, [2]] < 0.0, -t, t)
        lowest = 0.0 if name == "projective_plane" else -1.0
        return (np.column_stack([np.arctan2(t[:, 1], t[:, 0]), t[:, 2]]),
                [(-np.pi, np.pi), (lowest, 1.0)])
    return t, [None] * t.shape[1]


def unpacked(name, columns):
    if name not in ("sphere", "projective_plane"):
        return columns
    ring = np.sqrt(np.maximum(1.0 - columns[:, 1] ** 2, 0.0))
    return np.column_stack([ring * np.cos(columns[:, 0]), ring * np.sin(columns[:, 0]),
                            columns[:, 1]])


def ours_model(plan):
    """The one place that says how reml_sae is called."""
    import reml_sae as rs

    options = {} if plan["n_active"] == 1 else {"assignment": "topk",
                                                "n_active": plan["n_active"]}
    return rs.SAEManifold(n_atoms=len(plan["fitted"]), topology=plan["fitted"], **options)


def ours(train, test, plan):
    """reml_sae: coordinates alone, each atom at its mean amplitude, and with the amplitudes.

    A softmax weight of the one active atom stays below 1 and follows the row's radius, so it is an
    amplitude too.
    """
    s = plan["n_active"]
    begun = time.perf_counter()
    model = ours_model(plan).fit(train)
    fitted = time.perf_counter()
    codes = model.encode(test)
    encoded = time.perf_counter()
    names = [atom.topology.name for atom in model.atoms_]
    packs = [packed(name, t) for name, t in zip(names, codes.coordinates, strict=True)]
    width = max(t.shape[1] for t, _ in packs)

    def stored(source):
        index = np.argsort(-source.assignments, axis=1)[:, :s]
        values = np.full((len(source.assignments), s, width + 1), np.nan)
        for k, name in enumerate(names):
            rows, place = np.nonzero(index == k)
            columns = packed(name, source.coordinates[k])[0]
            values[rows, place, : columns.shape[1]] = columns[rows]
            values[rows, place, -1] = np.log(np.maximum(source.assignments[rows, k], 1e-3))
        return index, values

    train_index, train_values = stored(model.codes_)
    low, high = ranges(train_index, train_values, len(names))
    for k, (_, bounds) in enumerate(packs):
        for j, bound in enumerate(bounds):
            if bound is not None:
                low[k, j], high[k, j] = bound
    typical = np.array([np.exp(train_values[..., -1][train_index == k]).mean()
                        for k in range(len(names))])

    def decode(index, values):
        assignments, gates = np.zeros(codes.assignments.shape), np.zeros(codes.gates.shape, bool)
        coordinates = [t.copy() for t in codes.coordinates]
        for k, name in enumerate(names):
            rows, place = np.nonzero(index == k)
            gates[rows, k] = True
            columns = values[rows, place, : packs[k][0].shape[1]]
            coordinates[k][rows] = unpacked(name, columns)
            assignments[rows, k] = (np.exp(values[rows, place, -1]) if values.shape[2] > width
                                    else typical[k])
        return model.reconstruct(dataclasses.replace(
            codes, assignments=assignments, coordinates=coordinates, gates=gates))

    index, values = stored(codes)
    times = (fitted - begun, encoded - fitted)
    note = "" if model.converged_ else "not converged"
    yield Coded("reml_sae, coordinates", len(names), index, values[..., :-1], low[:, :-1],
                high[:, :-1], decode, *times, note=note)
    if len(names) > 1:
        yield Coded("reml_sae, with amplitudes", len(names), index, values, low, high, decode,
                    *times, amplitude=True, note=note)


# --- gamfit, through its public functions ---------------------------------------------------------

def gamfit_dense(train, test, plan, **options):
    """The manifold lane; it has not yet returned a model here, so only its own figures count."""
    from gamfit.sae import sae_manifold_fit

    names = set(plan["fitted"])
    shape = {"atom_topology": names.pop() if len(names) == 1 else "auto"}
    if shape["atom_topology"] == "plane":
        shape = {"atom_topology": "euclidean"}
    d = 1 if shape["atom_topology"] == "circle" else 2
    begun = time.perf_counter()
    model = sae_manifold_fit(train, K=len(plan["fitted"]), d_atom=d, random_state=0,
                             **shape, **options)
    fitted = time.perf_counter()
    found = model.reconstruct(test)
    yield {"label": "gamfit dense", "numbers": float(plan["n_active"] * (1 + d)),
           "ev": float(explained(test, found)), "fit": fitted - begun,
           "encode": time.perf_counter() - fitted, "at": [float("nan")] * len(plan["budgets"]),
           "note": ""}


def gamfit_dense_topk(train, test, plan):
    for row in gamfit_dense(train, test, plan, assignment="topk", top_k=plan["n_active"]):
        yield {**row, "label": "gamfit dense, topk"}


def gentler(fit):
    """The model at the smallest tolerance at which the peer grants one, and a note of it."""
    for tolerance in (1e-6, 1e-4, 1e-3, 1e-2):
        try:
            return fit(tolerance), "" if tolerance == 1e-6 else f"tolerance {tolerance:g}"
        except Exception as error:
            refusal = error
    raise refusal


def gamfit_block(train, test, plan):
    from gamfit.sae import block_sparse_dictionary_fit

    mean, n_blocks, s = train.mean(axis=0), len(plan["fitted"]), plan["n_active"]
    for b in sorted(set(plan["widths"])):
        begun = time.perf_counter()
        model, note = gentler(lambda tolerance, b=b: block_sparse_dictionary_fit(
            train - mean, n_blocks, block_size=b, block_topk=s, max_epochs=300,
            tolerance=tolerance))
        fitted = time.perf_counter()
        index, _, values = model.transform(test - mean)
        encoded = time.perf_counter()
        low, high = ranges(model.blocks, model.codes, n_blocks)
        frames = model.decoder.reshape(n_blocks, b, -1)
        yield Coded(f"gamfit block, b = {b}", n_blocks, index, values, low, high,
                    linear_decoder(frames, mean), fitted - begun, encoded - fitted, note=note)


def gamfit_sparse(train, test, plan):
    from gamfit.sae import sparse_dictionary_fit

    mean = train.mean(axis=0)
    for size, factor in LATENTS.items():
        latents = factor * len(plan["fitted"])
        for k in plan["ks"]:
            begun = time.perf_counter()
            model, note = gentler(lambda tolerance, latents=latents, k=k: sparse_dictionary_fit(
                train - mean, latents, active=k, max_epochs=300, score_mode="off",
                tolerance=tolerance))
            fitted = time.perf_counter()
            codes = model.transform(test - mean, score_mode="off")
            encoded = time.perf_counter()
            low, high = ranges(model.indices, model.codes[:, :, None], latents)
            yield Coded(f"gamfit sparse, {size}, k = {k}", latents, codes.indices,
                        codes.codes[:, :, None], low, high,
                        linear_decoder(model.decoder[:, None, :], mean), fitted - begun,
                        encoded - fitted, note=note)


# --- linear peers --------------------------------------------------------------------------------

def topk_sae(train, test, plan):
    """A TopK sparse autoencoder: tied start, unit decoder rows, auxiliary loss for dead latents."""
    import torch

    torch.manual_seed(0)
    Z, mean = torch.tensor(train, dtype=torch.float32), train.mean(axis=0)
    steps, batch = 3000, 512

    def encode(x, e, k):
        pre = (x - e["bias"]) @ e["encoder"] + e["offset"]
        top = torch.relu(pre).topk(k, dim=1)
        return pre, top.indices, top.values

    for size, factor in LATENTS.items():
        latents = factor * len(plan["fitted"])
        for k in plan["ks"]:
            begun = time.perf_counter()
            rows = Z[torch.randint(len(Z), (latents,))] - torch.tensor(mean, dtype=Z.dtype)
            decoder = torch.nn.functional.normalize(rows, dim=1)
            e = {"decoder": decoder.clone(), "encoder": decoder.T.clone(),
                 "offset": torch.zeros(latents), "bias": torch.tensor(mean, dtype=Z.dtype)}
            for value in e.values():
                value.requires_grad_()
            optimiser = torch.optim.Adam(e.values(), lr=3e-3)
            rate = torch.optim.lr_scheduler.LambdaLR(
                optimiser, lambda t: min(1.0, 2.0 * (1.0 - t / steps)))
            idle = torch.zeros(latents)
            for _ in range(steps):
                x = Z[torch.randint(len(Z), (batch,))]
                pre, index, values = encode(x, e, k)
                left = x - e["bias"] - (e["decoder"][index] * values[..., None]).sum(1)
                loss = left.pow(2).sum(1).mean()
                idle += 1
                idle[index[values > 0]] = 0
                dead = idle > 100
                if dead.any():
                    spare = torch.relu(pre[:, dead]).topk(min(4 * k, int(dead.sum())), dim=1)
                    guess = (e["decoder"][dead][spare.indices] * spare.values[..., None]).sum(1)
                    loss = loss + (left.detach() - guess).pow(2).sum(1).mean() / 32.0
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
                with torch.no_grad():
                    e["decoder"] /= e["decoder"].norm(dim=1, keepdim=True)
            fitted = time.perf_counter()
            with torch.no_grad():
                index, values = encode(torch.tensor(test, dtype=Z.dtype), e, k)[1:]
                encoded = time.perf_counter()
                own, own_values = encode(Z, e, k)[1:]
            low, high = ranges(own.numpy(), own_values.numpy()[:, :, None], latents)
            yield Coded(f"TopK SAE, {size}, k = {k}", latents, index.numpy(),
                        values.numpy()[:, :, None].astype(float), low, high,
                        linear_decoder(e["decoder"].detach().numpy()[:, None, :],
                                       e["bias"].detach().numpy()),
                        fitted - begun, encoded - fitted)


def dictionary_learning(train, test, plan):
    """scikit-learn's dictionary with OMP codes; the best of three penalties on training rows."""
    from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode

    mean = train.mean(axis=0)
    latents = LATENTS["5 a planted atom"] * len(plan["fitted"])
    begun = time.perf_counter()
    models = [MiniBatchDictionaryLearning(latents, alpha=alpha, batch_size=256, max_iter=50,
                                          random_state=0).fit(train - mean)
              for alpha in (0.1, 0.3, 0.6)]
    fitted = time.perf_counter()

    def encode(Z, frames, k):
        return dense_codes(sparse_encode(Z - mean, frames, algorithm="omp",
                                         n_nonzero_coefs=k), k)

    for k in plan["ks"]:
        tried = []
        for model in models:
            index, values = encode(train, model.components_, k)
            decode = linear_decoder(model.components_[:, None, :], mean)
            tried.append((explained(train, decode(index, values)), model.components_, decode))
        _, frames, decode = max(tried, key=lambda item: item[0])
        low, high = ranges(*encode(train, frames, k), latents)
        started = time.perf_counter()
        index, values = encode(test, frames, k)
        yield Coded(f"dictionary + OMP, {next(iter(LATENTS))}, k = {k}", latents, index, values,
                    low, high, decode, fitted - begun, time.perf_counter() - started)


def k_subspaces(train, test, plan, restarts=20, sweeps=60):
    """Alternate the best set of s subspaces of each row, over all sets, with least squares."""
    rng = np.random.default_rng(0)
    mean, widths, s = train.mean(axis=0), plan["widths"], plan["n_active"]
    sets, width = list(combinations(range(len(widths)), s)), max(widths)

    def encode(Z, frames):
        left = np.stack([(Z**2).sum(1) - ((Z @ np.linalg.qr(
            np.concatenate([frames[k] for k in chosen]).T)[0]) ** 2).sum(1) for chosen in sets])
        return np.array(sets)[left.argmin(0)], float(left.min(0).sum())

    def codes(Z, frames, index):
        values = np.full((len(Z), s, width), np.nan)
        for chosen in sets:
            rows = (index == chosen).all(1)
            D = np.concatenate([frames[k] for k in chosen])
            parts = np.split(np.linalg.lstsq(D.T, Z[rows].T, rcond=None)[0].T,
                             np.cumsum([widths[k] for k in chosen])[:-1], axis=1)
            for j, part in enumerate(parts):
                values[rows, j, : part.shape[1]] = part
        return values

    def refit(Z, frames, index):
        values, C = codes(Z, frames, index), np.zeros((len(Z), sum(widths)))
        starts = np.cumsum([0, *widths])
        for k, w in enumerate(widths):
            rows, place = np.nonzero(index == k)
            C[rows, starts[k] : starts[k] + w] = values[rows, place, :w]
        D = np.linalg.lstsq(C, Z, rcond=None)[0]
        return [np.linalg.qr(part.T)[0].T for part in np.split(D, starts[1:-1])]

    begun = time.perf_counter()
    best = (np.inf, None)
    for _ in range(restarts):
        frames = [np.linalg.qr(rng.normal(size=(train.shape[1], w)))[0].T for w in widths]
        index, loss = encode(train - mean, frames)
        for _ in range(sweeps):
            frames = [np.linalg.svd((train - mean)[(index == k).any(1)], full_matrices=False)[2][:w]
                      if s == 1 and (index == k).sum() > w else frame
                      for k, (w, frame) in enumerate(zip(widths, frames, strict=True))]
            if s > 1:
                frames = refit(train - mean, frames, index)
            index, after = encode(train - mean, frames)
            loss, before = after, loss
            if before - after < 1e-7 * before:
                break
        best = min(best, (loss, frames), key=lambda item: item[0])
    frames = best[1]
    fitted = time.perf_counter()
    index = encode(test - mean, frames)[0]
    values = codes(test - mean, frames, index)
    encoded = time.perf_counter()
    own = encode(train - mean, frames)[0]
    low, high = ranges(own, codes(train - mean, frames, own), len(widths))
    padded = np.zeros((len(widths), width, train.shape[1]))
    for k, frame in enumerate(frames):
        padded[k, : len(frame)] = frame
    yield Coded("k-subspaces", len(widths), index, values, low, high,
                linear_decoder(padded, mean), fitted - begun, encoded - fitted)


METHODS = {
    "reml_sae": ours,
    "gamfit-dense": gamfit_dense,
    "gamfit-dense-topk": gamfit_dense_topk,
    "gamfit-block": gamfit_block,
    "gamfit-sparse": gamfit_sparse,
    "topk-sae": topk_sae,
    "dictionary": dictionary_learning,
    "k-subspaces": k_subspaces,
}


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    plan = json.loads((folder / "plan.json").read_text())
    train, test = np.load(folder / "train.npy"), np.load(folder / "test.npy")
    for found in METHODS[name](train, test, plan):
        row = found if isinstance(found, dict) else score(found, test, plan["budgets"])
        print("ROW " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
