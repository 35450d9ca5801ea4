"""Every reader of files: a good file of its own, and what its users do with one."""

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save

import reml_sae as rs
from reml_sae import commands
from reml_sae.datasets import planted_circles, planted_manifolds
from reml_sae.discovery import journal as journals
from reml_sae.estimators import sae_manifold
from reml_sae.io import open_rows
from tests.faults.mutations import (
    Reader,
    alter_artifact,
    alter_bytes,
    alter_json,
    alter_npy,
    alter_npz,
    alter_rows_safetensors,
    alter_toml,
    alter_zarr,
    some_file,
)


class Reached(BaseException):
    """A fit whose arguments were all read would begin."""


ROWS = planted_circles(40, 5, 1, noise_sd=0.1).Z
PAIR = planted_manifolds(70, 5, ["circle", "linear"], noise_sd=0.1, offset=2.0, orthogonal=True).Z
COUNTS = np.random.default_rng(0).poisson(np.exp(PAIR))


@cache
def _softmax() -> rs.SAEManifold:
    return _fitted(PAIR, n_atoms=2, topology=["circle", "linear"])


def _fitted(Z: np.ndarray, **options: Any) -> rs.SAEManifold:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(n_init=1, max_outer=5, **options).fit(Z)


def _write_fit(Z: np.ndarray, folder: bool = False, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        model = _fitted(Z, **options)
        (model.save_folder if folder else model.save)(path)
    return write


def use_fit(path: Path) -> list[Any]:
    """What is done with a fit: its rows encoded and decoded, its curves, what it says."""
    model = rs.load(path)
    Z = COUNTS if model.family == "poisson" else PAIR
    codes = model.encode(Z[:4])
    out = [model.reconstruct(codes), model.transform(Z[:4]), codes.objective, model.predict(Z[:4])]
    for atom in model.atoms_:
        if atom.topology.latent_dim:
            t = atom.topology.grid(4)
            out += [atom.curve(t), *atom.band(t)]
    assert model.summary() and model.diagnostics_.summary()
    assert repr(model) and repr(model.codes_)
    model.save(path.with_name("again.safetensors"))
    rs.load(path.with_name("again.safetensors"))
    return out


def use_codes(path: Path) -> list[Any]:
    codes = rs.Codes.load(path)
    assert repr(codes) and len(codes.column_names) == codes.to_array().shape[1]
    return [codes.to_array(), codes[:2].to_array()]


def use_rows(path: Path) -> list[Any]:
    source = open_rows(path)
    n, _ = source.shape
    return [source.rows(0, min(n, 50)), source.rows(n - 1, n), source.chunk(0, 1).read()]


def use_config(path: Path) -> list[Any]:
    """All that `reml-sae fit --config` reads before a search begins."""
    def begins(*_: Any) -> None:
        raise Reached

    with patch.object(sae_manifold, "search", begins):
        try:
            rs.SAEManifold(**{"verbose": 0, **commands._config(str(path))}).fit(ROWS)
        except Reached:
            return []
    raise AssertionError("a fit without a search")


@cache
def _journal_model() -> Any:
    model = _fitted(ROWS, n_atoms=1, noise="isotropic")._fitted
    return model.training_model(model.units.standardised(ROWS))


OF = {"the rows": "abc", "n_atoms": "1"}


def _journal_fit(path: Path) -> Any:
    return journals.Journal.opened(path, OF).fit(
        _journal_model(), curvature="majorizer", rough=True, max_fellner_schall=2, max_outer=5)


def use_journal(path: Path) -> list[Any]:
    """A fit that is read, or made anew."""
    def anew(*_: Any, **__: Any) -> None:
        raise Reached

    with patch.object(journals, "fit_reml", anew):
        try:
            found = _journal_fit(path)
        except Reached:
            return []
    return [found.rho, found.theta.beta, found.criterion, found.edf]


def alter_journal(path: Path, rng: np.random.Generator) -> None:
    alter_artifact(some_file(path, rng), rng)


def _write_table(table: Any, path: Path, stream: bool) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, (
            pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=16):
            writer.write_batch(batch)


def alter_arrow(path: Path, rng: np.random.Generator) -> None:
    """Columns of another kind; what they say of themselves is in bytes."""
    import pyarrow as pa

    rows = ROWS
    columns = [
        pa.array(rows.tolist()), pa.array([row.tolist()[:i % 4] for i, row in enumerate(rows)]),
        pa.array([None, *rows.tolist()[1:]]), pa.array(rows[:, 0]),
        pa.array([[[row.tolist()]] for row in rows]), pa.array([str(row) for row in rows]),
        pa.array([[np.nan] * 3] * len(rows)), pa.array([["x"]] * len(rows)),
        pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]),
        pa.array([[None, 1.0]] * len(rows)), pa.array([[]] * len(rows), pa.list_(pa.float32())),
        pa.array([{"a": 1.0}] * len(rows))]
    chosen = [columns[i] for i in rng.choice(len(columns), rng.integers(0, 3))]
    table = pa.table({f"c{i}": column for i, column in enumerate(chosen)})
    _write_table(table, path, stream=bool(rng.random() < 0.5))
    if rng.random() < 0.3:
        alter_bytes(path, rng)


def _write_arrow(path: Path) -> None:
    import pyarrow as pa

    _write_table(pa.table({"h": pa.array(ROWS.tolist())}), path, stream=True)


def _write_zarr(path: Path) -> None:
    import zarr

    zarr.create_array(str(path), shape=ROWS.shape, chunks=(16, 5), dtype="f8")[:] = ROWS


def _write_shards(path: Path) -> None:
    path.mkdir()
    names = {}
    for i in range(2):
        (path / f"s{i}.safetensors").write_bytes(save({f"h{i}": ROWS[20 * i:20 * (i + 1)].copy()}))
        names[f"h{i}"] = f"s{i}.safetensors"
    (path / "rows.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


CONFIG = {
    "n_atoms": 2, "topology": [{"topology": "circle", "n_harmonics": 2}, "linear"],
    "assignment": "softmax", "family": "gaussian", "curvature": "majorizer", "max_outer": 50,
    "tol": 1e-6, "n_init": 2, "random_state": 0, "temperature": 1.0, "n_active": 1,
    "max_atoms": 4, "demote": False, "max_time": 10.0, "integration": "auto",
    "noise": {"kind": "factor", "rank": 1}, "row_noise": "gaussian",
    "penalties": [{"kind": "softmax_assignment_sparsity", "k_atoms": 2, "temperature": 1.0},
                  {"kind": "ard", "latent_dim": 1}]}


def _write_config(path: Path) -> None:
    values = {**CONFIG, "penalties": None, "topology": "circle"}
    if path.suffix == ".json":
        path.write_text(json.dumps(CONFIG))
    else:
        path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()
                                  if value is not None and not isinstance(value, dict)))


def _write_codes(path: Path) -> None:
    _softmax().codes_.save(path)


def _write_journal(path: Path) -> None:
    _journal_fit(path)


READERS = {
    "fit, softmax": Reader(lambda path: _softmax().save(path), use_fit, alter_artifact,
                           "fit.safetensors"),
    "fit, topk, t rows": Reader(
        _write_fit(PAIR, n_atoms=2, topology=["circle", "linear"], assignment="topk",
                   row_noise="student_t"), use_fit, alter_artifact, "fit.safetensors"),
    "fit, factor noise": Reader(
        _write_fit(PAIR, n_atoms=1, topology="interval", noise={"kind": "factor", "rank": 1}),
        use_fit, alter_artifact, "fit.safetensors"),
    "fit, own noises": Reader(
        _write_fit(PAIR, n_atoms=2, topology=["circle", "linear"], assignment="topk",
                   noise={"kind": "diagonal", "per_atom": True}), use_fit, alter_artifact,
        "fit.safetensors"),
    "fit, gates, ard": Reader(
        _write_fit(PAIR, n_atoms=2, topology=[{"topology": "circle", "n_harmonics": 2}, "plane"],
                   assignment="ordered_beta_bernoulli", n_active=2,
                   penalties=[{"kind": "harmonic_roughness", "period": 5},
                              {"kind": "ard", "latent_dim": 2}]), use_fit, alter_artifact,
        "fit.safetensors"),
    "fit, Poisson": Reader(
        _write_fit(COUNTS, n_atoms=1, family="poisson"), use_fit, alter_artifact,
        "fit.safetensors"),
    "fit, shape searched": Reader(
        _write_fit(ROWS, n_atoms=1, topology="auto"), use_fit, alter_artifact, "fit.safetensors"),
    "fit, SAELens": Reader(_write_fit(ROWS, folder=True, n_atoms=1), use_fit, alter_json, "folder"),
    "codes, npz": Reader(_write_codes, use_codes, alter_npz, "codes.npz"),
    "codes, safetensors": Reader(_write_codes, use_codes, alter_artifact, "codes.safetensors"),
    "rows, npy": Reader(lambda path: np.save(path, ROWS), use_rows, alter_npy, "rows.npy"),
    "rows, safetensors": Reader(lambda path: path.write_bytes(save({"h": ROWS})) and None,
                                use_rows, alter_rows_safetensors, "rows.safetensors"),
    "rows, shards": Reader(_write_shards, use_rows, alter_json, "shards"),
    "rows, zarr": Reader(_write_zarr, use_rows, alter_zarr, "rows.zarr"),
    "rows, arrow": Reader(_write_arrow, use_rows, alter_arrow, "rows.arrow"),
    "config, json": Reader(_write_config, use_config, alter_json, "config.json"),
    "config, toml": Reader(_write_config, use_config, alter_toml, "config.toml"),
    "checkpoint": Reader(_write_journal, use_journal, alter_journal, "checkpoint"),
}
