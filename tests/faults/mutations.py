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
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from reml_sae.io.artifacts import CHECKSUM_KEY, METADATA_KEY, _checksum

DEEP = "<deep>"
WILD = (None, True, False, 0, -1, 1, 3, 1.5, 10**9, 10**18, 2**70, -(10**9), 1e300, -1e300, 1e-300,
        float("nan"), float("inf"), float("-inf"), "", "x", "nan", "__class__", "../../x",
        "<script>", "x" * 10_000, [], {}, [[]], [1] * 1000, [[1, 2], [3]], {"kind": "x"},
        {"topology": "circle"}, DEEP)
NUMBERS = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300, 0.0, -1.0, 1e9)


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
        alter_bytes(some_file(bad, rng), rng)
    return bad


# --- alterations ---------------------------------------------------------------------------------


def some_file(path: Path, rng: np.random.Generator) -> Path:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return files[rng.integers(len(files))]


def alter_bytes(path: Path, rng: np.random.Generator) -> None:
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
