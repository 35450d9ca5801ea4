"""The arrays that row kernels work on: NumPy's, or torch's on a CPU or a GPU.

Kernels call the functions that both have under one name (`Backend.xp`); what differs is here.
Products with rows are in the ``narrow`` type; Gram blocks and sums over chunks in float64.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np

from reml_sae.errors import InputError, require

DeviceArray = Any
"""An array of the backend."""
Precision = Literal["float32", "float64"]


class Backend(Protocol):
    """An array library on a device.

    Attributes
    ----------
    xp : module
    narrow, wide : dtypes
    elements : int
        Numbers in the widest array of a chunk.
    turn : context manager
        Under which a sweep is made: those of several threads take turns on a device.
    """

    xp: Any
    narrow: Any
    wide: Any
    elements: int
    turn: AbstractContextManager[Any]

    @property
    def room(self) -> int:
        """Bytes that are free on the device; none where it has the memory of the host."""

    def array(self, x: Any, dtype: Any = None) -> DeviceArray:
        """An array on the device, of the narrow type unless said otherwise."""

    def numpy(self, x: DeviceArray) -> np.ndarray:
        """The same in NumPy."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Zeros."""

    def places(self, n: int) -> DeviceArray:
        """0 .. n - 1."""

    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        """The same numbers in another type."""

    def order(self, x: DeviceArray) -> DeviceArray:
        """Places that sort, equal ones in their order."""

    def largest(self, x: DeviceArray, count: int) -> DeviceArray:
        """Columns of the largest entries of every row."""

    def rough_product(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """a b, of which three digits are enough."""

    def segment_sums(self, x: DeviceArray, counts: np.ndarray) -> DeviceArray:
        """Sums (s, ..) over so many rows of x one after the other, in the wide type."""


class NumPyBackend:
    """See `Backend`."""

    xp: Any = np
    wide: Any = np.float64
    elements = 2_000_000
    turn: AbstractContextManager[Any] = nullcontext()
    room = 0

    def __init__(self, precision: Precision = "float32"):
        self.narrow: Any = np.dtype(precision)

    def array(self, x: Any, dtype: Any = None) -> DeviceArray:
        """See `Backend`."""
        return np.asarray(x, self.narrow if dtype is None else dtype)

    def numpy(self, x: DeviceArray) -> np.ndarray:
        """See `Backend`."""
        return np.asarray(x)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """See `Backend`."""
        return np.zeros(shape, dtype)

    def places(self, n: int) -> DeviceArray:
        """See `Backend`."""
        return np.arange(n)

    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        """See `Backend`."""
        return x.astype(dtype, copy=False)

    def order(self, x: DeviceArray) -> DeviceArray:
        """See `Backend`."""
        return np.argsort(x, kind="stable")

    def largest(self, x: DeviceArray, count: int) -> DeviceArray:
        """See `Backend`."""
        return np.argpartition(-x, count - 1, axis=1)[:, :count]

    def rough_product(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """See `Backend`."""
        return a @ b

    def segment_sums(self, x: DeviceArray, counts: np.ndarray) -> DeviceArray:
        """See `Backend`."""
        return np.add.reduceat(x, np.cumsum(counts) - counts, axis=0, dtype=self.wide)


class TorchBackend:
    """See `Backend`."""

    turn: AbstractContextManager[Any] = Lock()  # precision of products is one for all threads

    def __init__(self, device: str, precision: Precision = "float32"):
        torch: Any = require("torch", "torch", f"device={device!r}")
        self.xp, self._device = torch, torch.device(device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise InputError("device='cuda' needs a GPU that torch can use; there is none here")
        self.narrow, self.wide = getattr(torch, precision), torch.float64
        self.elements = 1 << 28 if self._device.type == "cuda" else NumPyBackend.elements

    @property
    def room(self) -> int:
        """See `Backend`."""
        cuda = self._device.type == "cuda"
        return int(self.xp.cuda.mem_get_info(self._device)[0]) if cuda else 0

    def array(self, x: Any, dtype: Any = None) -> DeviceArray:
        """See `Backend`."""
        return self.xp.as_tensor(
            x, dtype=self.narrow if dtype is None else dtype, device=self._device)

    def numpy(self, x: DeviceArray) -> np.ndarray:
        """See `Backend`."""
        return np.asarray(x.cpu().numpy())

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """See `Backend`."""
        return self.xp.zeros(shape, dtype=dtype, device=self._device)

    def places(self, n: int) -> DeviceArray:
        """See `Backend`."""
        return self.xp.arange(n, device=self._device)

    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        """See `Backend`."""
        return x.to(dtype)

    def order(self, x: DeviceArray) -> DeviceArray:
        """See `Backend`."""
        return self.xp.argsort(x, stable=True)

    def largest(self, x: DeviceArray, count: int) -> DeviceArray:
        """See `Backend`."""
        return self.xp.topk(x, count, dim=1).indices

    def rough_product(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """See `Backend`."""
        before = self.xp.get_float32_matmul_precision()
        self.xp.set_float32_matmul_precision("high")  # TF32 on a GPU
        try:
            return a @ b
        finally:
            self.xp.set_float32_matmul_precision(before)

    def segment_sums(self, x: DeviceArray, counts: np.ndarray) -> DeviceArray:
        """See `Backend`."""
        # in the order of the rows, where adding at places is in any
        lengths = self.xp.as_tensor(counts, device=self._device)
        return self.xp.segment_reduce(x.to(self.wide), "sum", lengths=lengths, axis=0)


def get_backend(device: str = "numpy", precision: Precision = "float32") -> Backend:
    """The backend of a device.

    Parameters
    ----------
    device : str
        "numpy", or a device of torch: "cpu", "cuda", "cuda:1".
    precision : "float32" or "float64"
        Of rows and products with rows.

    Raises
    ------
    MissingDependencyError
        Where torch is needed and not installed.
    InputError
        Where there is no such GPU.
    """
    return NumPyBackend(precision) if device == "numpy" else TorchBackend(device, precision)
