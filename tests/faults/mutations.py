"""Files that are not as they were written, for every reader: bytes, and values behind checksums.

A `Reader` writes a good file and does with a file what its users do. `mutated` alters one by a
seed: even ones alter bytes, odd ones what the file says, with a checksum that agrees.
"""

import copy
import json
import shutil
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

import reml_sae as rs
from reml_sae import commands
from reml_sae.datasets import planted_circles, planted_manifolds
from reml_sae.discovery import journal as journals
from reml_sae.estimators import sae_manifold
from reml_sae.io import open_rows
from reml_sae.io.artifacts import CHECKSUM_KEY, METADATA_KEY, _checksum

DEEP = "<deep>"
WILD = (None, True, False, 0, -1, 1, 3, 1.5, 10**9, 10**18, 2**70, -(10**9), 1e300, -1e300, 1e-300,
        float("nan"), float("inf"), float("-inf"), "", "x", "nan", "__class__", "../../x",
        "<script>", "x" * 10_000, [], {}, [[]], [1] * 1000, [[1, 2], [3]], {"kind": "x"},
        {"topology": "circle"}, DEEP)
NUMBERS = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300, 0.0, -1.0, 1e9)


class Reached(BaseException):
    """A fit whose arguments were all read would begin."""


@dataclass(frozen=True)
class Reader:
    """How a file is written, read and altered.

    Attributes
    ----------
    write : callable (path)
    use : callable (path)
        Read it and compute from it; what it returns is arrays that must be finite.
    alter : callable (path, rng)
        Change what it says.
    name : str
        Of the file, or of the folder.
    """

    write: Callable[[Path], None]
    use: Callable[[Path], list[Any]]
    alter: Callable[[Path, np.random.Generator], None]
    name: str


def mutated(reader: Reader, good: Path, seed: int) -> Path:
    """A copy of a good file, altered."""
    rng = np.random.default_rng(seed)
    bad = good.with_name("bad") / reader.name
    shutil.rmtree(bad.parent, ignore_errors=True)
    bad.parent.mkdir()
    (shutil.copytree if good.is_dir() else shutil.copy)(good, bad)
    if seed % 2:
        reader.alter(bad, rng)
    else:
        _bytes(_some_file(bad, rng), rng)
    return bad


# --- alterations ---------------------------------------------------------------------------------


def _some_file(path: Path, rng: np.random.Generator) -> Path:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return files[rng.integers(len(files))]


def _bytes(path: Path, rng: np.random.Generator) -> None:
    """Flip, cut, insert, double or blank some bytes, near the head as often as anywhere."""
    content = bytearray(path.read_bytes())
    reach = len(content) if rng.random() < 0.5 else min(len(content), 512)
    for _ in range(int(rng.integers(1, 5))):
        if not content:
            break
        place = int(rng.integers(reach)) % len(content)
        length = int(rng.integers(1, 65))
        match int(rng.integers(6)):
            case 0:
                content[place] ^= 1 << int(rng.integers(8))
            case 1:
                del content[place:]
            case 2:
                content[place:place] = rng.bytes(length)
            case 3:
                content[place:place + length] = content[place:place + length] * 2
            case 4:
                content[place:place + length] = bytes([rng.choice([0, 255])]) * length
            case _:
                content[place:place + 8] = rng.bytes(8)
    path.write_bytes(content)


def _json(value: Any, rng: np.random.Generator) -> str:
    """The text of a document of which one or two places are altered."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 3))):
        places = _places(value)
        path = places[rng.integers(len(places))]
        if not path:
            value = _wild(rng)
            continue
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = _other(inner[path[-1]], rng)
        if isinstance(inner, dict) and rng.random() < 0.1:
            inner[str(_wild(rng))[:20]] = inner.pop(path[-1])
        elif rng.random() < 0.1:
            del inner[path[-1]]
    text = json.dumps(value)
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values of nested lists and dicts, these themselves among them."""
    items = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, list) else ())
    return [path, *(found for key, item in items for found in _places(item, (*path, key)))]


def _wild(rng: np.random.Generator) -> Any:
    return copy.deepcopy(WILD[rng.integers(len(WILD))])


def _other(value: Any, rng: np.random.Generator) -> Any:
    """Something in the place of a value, as often near it as not."""
    if isinstance(value, bool | None) or rng.random() < 0.5:
        return _wild(rng)
    if isinstance(value, int | float):
        return value * float(rng.choice([-1.0, 0.0, 1e9, 1e300, 1e-300])) if rng.random() < 0.5 \
            else int(rng.choice([-1, 0, 2, 10**6, 10**9])) + int(np.nan_to_num(value, posinf=0.0))
    if isinstance(value, str):
        return value[:-1] if rng.random() < 0.5 else value.upper() + "x"
    if isinstance(value, list):
        return value + value if rng.random() < 0.5 else value[:-1]
    return {}


def _array(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another array in the place of one."""
    match int(rng.integers(8)):
        case 0 | 1:
            out = value.astype(float)
            if out.size:
                out.flat[rng.integers(out.size)] = NUMBERS[rng.integers(len(NUMBERS))]
            return out if rng.random() < 0.5 or value.dtype.kind == "f" else _cast(out, value.dtype)
        case 2:
            with np.errstate(all="ignore"):
                return value * NUMBERS[rng.integers(len(NUMBERS))]
        case 3:
            return np.concatenate([value, value]) if value.ndim else value.reshape(1)
        case 4:
            return value[:-1] if value.ndim and len(value) else np.zeros((2, 2))
        case 5:
            return np.ascontiguousarray(value.T) if value.ndim > 1 else value[..., None]
        case 6:
            return _cast(value, rng.choice(["int8", "bool", "float16", "uint64", "float32"]))
        case _:
            return np.zeros((0,) * int(rng.integers(4)) + (2,) * int(rng.integers(3)))


def _cast(value: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value.astype(dtype)


def _arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    names = sorted(arrays)
    name = names[rng.integers(len(names))]
    if rng.random() < 0.1:
        other = names[rng.integers(len(names))]
        return {**arrays, name: arrays[other], other: arrays[name]}
    if rng.random() < 0.1:
        return {key: value for key, value in arrays.items() if key != name}
    return {**arrays, name: _array(arrays[name], rng)}


def alter_artifact(path: Path, rng: np.random.Generator) -> None:
    """Another metadatum or tensor, under a checksum that agrees."""
    with safe_open(path, framework="np") as handle:
        text = handle.metadata()[METADATA_KEY]
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    if not tensors or rng.random() < 0.5:
        text = _json(json.loads(text), rng)
    else:
        tensors = {name: np.ascontiguousarray(value)
                   for name, value in _arrays(tensors, rng).items()}
    path.write_bytes(save(tensors, {METADATA_KEY: text, CHECKSUM_KEY: _checksum(tensors, text)}))


def alter_npz(path: Path, rng: np.random.Generator) -> None:
    with np.load(path) as handle:
        arrays = {name: handle[name] for name in handle.files}
    text = str(arrays.pop("description"))
    if rng.random() < 0.5:
        text = _json(json.loads(text), rng)
    else:
        arrays = _arrays(arrays, rng)
    np.savez(path, description=np.array(text), **arrays)


def alter_npy(path: Path, rng: np.random.Generator) -> None:
    value = _array(np.load(path), rng)
    np.save(path, np.asfortranarray(value) if rng.random() < 0.2 else value)
    if rng.random() < 0.5:  # another text in the header
        content = path.read_bytes()
        size = int.from_bytes(content[8:10], "little")
        header = content[10:10 + size].decode()
        old, new = [("(", "(10**9, "), ("(", f"({10**12}, "), ("'<f8'", "'O'"), ("'<f8'", "'<M8'"),
                    ("False", "True"), ("'shape'", "'shap'"), ("(", "(-"), ("(", "(" * 60),
                    ("'<f8'", "'V999999999'")][rng.integers(9)]
        header = header.replace(old, new, 1).rstrip()
        header = header[:size - 1].ljust(size - 1) + "\n"
        path.write_bytes(content[:10] + header.encode("latin1") + content[10 + size:])


def alter_rows_safetensors(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = _json(json.loads(content[8:8 + size]), rng).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size:])


def alter_zarr(path: Path, rng: np.random.Generator) -> None:
    file = path / "zarr.json"
    file.write_text(_json(json.loads(file.read_text()), rng))


def alter_json(path: Path, rng: np.random.Generator) -> None:
    file = next(iter(sorted(path.glob("*.json")))) if path.is_dir() else path
    file.write_text(_json(json.loads(file.read_text()), rng))


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
        _bytes(path, rng)


def alter_toml(path: Path, rng: np.random.Generator) -> None:
    values = tomllib.loads(path.read_text())
    name = sorted(values)[rng.integers(len(values))]
    values[name] = _other(values[name], rng)
    lines = []
    for key, value in values.items():
        text = ("[" * 100_000 + "]" * 100_000 if value == DEEP
                else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf"))
        lines.append(f"{key} = {text}")
    path.write_text("\n".join(lines))


# --- readers -------------------------------------------------------------------------------------

ROWS = planted_circles(40, 5, 1, noise_sd=0.1).Z
PAIR = planted_manifolds(70, 5, ["circle", "linear"], noise_sd=0.1, offset=2.0, orthogonal=True).Z
COUNTS = np.random.default_rng(0).poisson(np.exp(PAIR))


def _fitted(Z: np.ndarray, **options: Any) -> rs.SAEManifold:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(n_init=1, max_outer=30, **options).fit(Z)


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
    alter_artifact(_some_file(path, rng), rng)


def _write_table(table: Any, path: Path, stream: bool) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, (
            pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=16):
            writer.write_batch(batch)


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


@cache
def _codes() -> rs.Codes:
    return _fitted(PAIR, n_atoms=2, topology=["circle", "linear"]).codes_


def _write_codes(path: Path) -> None:
    _codes().save(path)


def _write_journal(path: Path) -> None:
    _journal_fit(path)


READERS = {
    "fit, softmax": Reader(_write_fit(PAIR, n_atoms=2, topology=["circle", "linear"]), use_fit,
                           alter_artifact, "fit.safetensors"),
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
