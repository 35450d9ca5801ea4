"""Data matrices from arrays, tensors and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.typing import Array

SUFFIXES = (".npy", ".safetensors")


def read_matrix(source: Any, argument: str = "Z") -> Array:
    """Float64 C-ordered matrix (N, p) from an array, a memmap, a tensor or a file.

    Parameters
    ----------
    source : array-like, tensor with ``__dlpack__``, or path
        ``file.npy``, ``file.safetensors`` or ``file.safetensors::tensor``.
    argument : str
        Name of the argument in messages.

    Returns
    -------
    (N, p) array
        A copy; the source is never modified.

    Raises
    ------
    InputError
        Naming the argument, what is wrong with it and the remedy.
    """
    if isinstance(source, (str, os.PathLike)):
        raw = _read_file(os.fspath(source), argument)
    else:
        raw = _as_array(source, argument)
    if raw.dtype.kind == "O":
        raw = _numbers(raw, argument)
    if raw.dtype.kind == "c":
        raise InputError(f"Complex data not supported: {argument} has dtype {raw.dtype}; pass real "
                         "and imaginary parts as columns")
    if raw.dtype.kind not in "fiub":
        raise InputError(f"{argument} has dtype {raw.dtype}; convert it to real numbers first")
    if raw.ndim != 2:
        raise InputError(
            f"{argument} must be two-dimensional (rows, columns), got shape {raw.shape}. Reshape "
            "your data: a single row to (1, p), a single column to (N, 1)"
        )
    for axis, name in enumerate(("sample(s)", "feature(s)")):
        if raw.shape[axis] == 0:
            raise InputError(f"{argument} is empty: 0 {name} (shape={raw.shape}) while a minimum "
                             "of 1 is required.")
    data = np.array(raw, dtype=np.float64, order="C")
    bad = ~np.isfinite(data)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = "NaN" if np.isnan(data[row, column]) else f"{data[row, column]}"
        raise InputError(
            f"{argument}[{row}, {column}] is {value}, one of {int(bad.sum())} entries "
            "that are not finite; drop or impute those rows"
        )
    return data


def _numbers(raw: NDArray[Any], argument: str) -> NDArray[np.float64]:
    try:
        return raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument} has dtype object and holds what is no number ({error}); "
                         "convert it to real numbers first") from error


def _as_array(source: Any, argument: str) -> NDArray[Any]:
    if hasattr(source, "toarray"):
        raise InputError(f"{argument} is a sparse matrix; call .toarray() first")
    if hasattr(source, "__dlpack__") and not isinstance(source, np.ndarray):
        try:
            return np.from_dlpack(source.detach() if hasattr(source, "detach") else source)
        except (TypeError, ValueError, BufferError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"{argument}: the tensor cannot be shared ({error}); move it to the CPU as float32 "
                "or float64"
            ) from error
    if isinstance(source, np.ma.MaskedArray) and np.ma.count_masked(source):
        raise InputError(f"{argument} is a masked array, and {np.ma.count_masked(source)} of its "
                         "entries are masked; fill them in, or drop those rows")
    try:
        return np.asarray(source)
    except ValueError as error:
        raise InputError(f"{argument} is not a matrix: {error}") from error


def _read_file(name: str, argument: str) -> NDArray[Any]:
    path_name, _, tensor = name.partition("::")
    path = Path(path_name)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{argument}={name!r}: unknown file type {path.suffix!r}; use {' or '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise InputError(f"{argument}={name!r}: there is no such file")
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise InputError(
                f"{argument}={name!r} cannot be read as .npy ({error}); write it again with "
                "numpy.save, without pickled objects"
            ) from error
    return _read_tensor(path, tensor, argument)


def _read_tensor(path: Path, tensor: str, argument: str) -> NDArray[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as handle:
            names = sorted(handle.keys())
            if not tensor and len(names) != 1:
                raise InputError(
                    f"{argument}={str(path)!r} holds {len(names)} tensors; name one as "
                    f"'{path}::NAME' of {', '.join(names[:8])}"
                )
            if tensor and tensor not in names:
                raise InputError(
                    f"{argument}: {str(path)!r} has no tensor {tensor!r}; it holds "
                    f"{', '.join(names[:8])}"
                )
            return np.asarray(handle.get_tensor(tensor or names[0]))
    except (SafetensorError, TypeError, OSError) as error:
        raise InputError(
            f"{argument}={str(path)!r} cannot be read as .safetensors ({error}); it may be "
            "truncated, or its dtype may be unknown to numpy (save bfloat16 as float32)"
        ) from error
