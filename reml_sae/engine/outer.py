"""What rho consists of: `Outer` names every outer parameter, bounds it and finds it.

An outer parameter is a log strength, or one of the family's own (psi), or whatever else a model
leaves to the search over V. Those that belong together are an `OuterPart`; the family's is last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.typing import Array, Mask


@dataclass(frozen=True)
class OuterKey:
    """Which outer parameter, in words that hold in every model that has it.

    Attributes
    ----------
    kind : str
        What it belongs to: the kind of a penalty, "family", or a name of the model's.
    target : str
        What the penalty acts on.
    atom : int
        The atom that it acts on; -1 for all, or none.
    index : int
        Which one of those that belong together.
    """

    kind: str
    target: str = ""
    atom: int = -1
    index: int = 0


@dataclass(frozen=True, eq=False)
class OuterPart:
    """Outer parameters that belong together, n of them.

    Attributes
    ----------
    kind, target, atom
        See `OuterKey`.
    names : tuple of str
    bounds : (n, 2) array
        Box that the outer loop searches.
    quadratic : (n,) bool
        Which scale a quadratic form, so that the Fellner-Schall step is sound: strengths of
        quadratic penalties, and in the family's part a dispersion that scales the squares of the
        data fit and does no more than that.
    """

    kind: str
    names: tuple[str, ...]
    bounds: Array
    quadratic: Mask
    target: str = ""
    atom: int = -1

    @property
    def keys(self) -> tuple[OuterKey, ...]:
        """One key for each parameter."""
        return tuple(OuterKey(self.kind, self.target, self.atom, j)
                     for j in range(len(self.names)))


@dataclass(frozen=True, eq=False)
class Outer:
    """The outer parameters of a model, in the order of rho.

    Attributes
    ----------
    parts : tuple of OuterPart
        All but the family's.
    family : OuterPart
    """

    parts: tuple[OuterPart, ...]
    family: OuterPart

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _all(self) -> tuple[OuterPart, ...]:
        return (*self.parts, self.family)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of every parameter."""
        return tuple(name for part in self._all for name in part.names)

    @cached_property
    def keys(self) -> tuple[OuterKey, ...]:
        """Key of every parameter."""
        return tuple(key for part in self._all for key in part.keys)

    @cached_property
    def bounds(self) -> Array:
        """Box that the outer loop searches, (n_rho, 2)."""
        return np.concatenate([part.bounds.reshape(-1, 2) for part in self._all])

    @cached_property
    def quadratic(self) -> Mask:
        """Which parameters scale a quadratic form, (n_rho,); see `OuterPart`."""
        return np.concatenate([part.quadratic for part in self._all])

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each of `parts` is, in order."""
        ends = np.cumsum([0, *(len(part.names) for part in self.parts)]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def of_atoms(self) -> tuple[NDArray[np.intp], ...]:
        """Places of the parameters of every atom that has some."""
        atoms = np.array([key.atom for key in self.keys])
        return tuple(np.flatnonzero(atoms == k) for k in np.unique(atoms[atoms >= 0]))

    @cached_property
    def psi(self) -> slice:
        """Where the family's own parameters are."""
        return slice(len(self) - len(self.family.names), len(self))

    @cached_property
    def dispersion(self) -> int | None:
        """Place of a log dispersion that scales the squares of the data fit; None without one."""
        return self.psi.start if self.family.quadratic.any() else None

    def __getitem__(self, kind: str) -> slice:
        """Where the one part of a kind is."""
        (found,) = (own for part, own in zip(self.parts, self.slices, strict=True)
                    if part.kind == kind)
        return found

    def place(self, name: str) -> int:
        """Place of a parameter.

        Raises
        ------
        InputError
            Where there is none of this name, listing them.
        """
        if name not in self.names:
            raise InputError(f"{name!r} is no outer parameter; there are {', '.join(self.names)}")
        return self.names.index(name)

    def named(self, rho: Array) -> dict[str, float]:
        """Values by name."""
        return dict(zip(self.names, map(float, rho), strict=True))

    def keyed(self, rho: Array) -> dict[OuterKey, float]:
        """Values by key, in which another model can take them over."""
        return dict(zip(self.keys, map(float, rho), strict=True))

    def filled(self, rho: Array, known: Mapping[OuterKey, float]) -> Array:
        """A copy of rho with the values of those keys that this model has."""
        return np.array([known.get(key, value) for key, value in zip(self.keys, rho, strict=True)])

    def holding(self, values: Mapping[OuterKey, float]) -> Outer:
        """The same, with the boxes of these keys no wider than the values."""
        parts = [replace(part, bounds=np.array(
            [[values[key]] * 2 if key in values else box
             for key, box in zip(part.keys, part.bounds.tolist(), strict=True)]).reshape(-1, 2))
            for part in self._all]
        return Outer(tuple(parts[:-1]), parts[-1])

    def clip(self, rho: Array) -> Array:
        """The nearest rho within the box."""
        return np.clip(rho, self.bounds[:, 0], self.bounds[:, 1])
