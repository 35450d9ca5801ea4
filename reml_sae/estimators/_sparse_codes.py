"""`SparseCodes`: codes of rows that use one atom each, in memory that does not grow with atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.errors import ArtifactError
from reml_sae.estimators._codes import OF_ROWS, Codes
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array, Index


class SparseCodes(Codes):
    """Local parameters of rows of which each uses one atom.

    The attributes of `Codes` that have an entry for every row and atom are made anew whenever they
    are asked for; of many rows take some first, as in ``codes[:1000].assignments``.

    Parameters
    ----------
    labels : (N,) int array
        The atom of every row.
    amplitudes : (N,) array
        Its amplitude there.
    points : (N, d) array
        Its coordinates there; d is that of the atom with most, and what others lack is zero.
    objective, converged, weights : (N,) arrays
    topologies : tuple of K Manifold
    """

    labels: Index
    amplitudes: Array
    points: Array

    DESCRIPTION: ClassVar[Mapping[str, str]] = {
        "labels": "(N,) atom of the row",
        "amplitudes": "(N,) amplitude there",
        "points": "(N, d) coordinates there, filled up with zeros",
        **OF_ROWS,
    }

    def __init__(
        self, labels: Index, amplitudes: Array, points: Array, objective: Array,
        converged: NDArray[np.bool_], weights: Array, topologies: tuple[Manifold, ...],
    ):
        values = labels, amplitudes, points, objective, converged, weights
        for name, value in zip(self.DESCRIPTION, values, strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "topologies", topologies)

    @classmethod
    def of(cls, codes: Codes) -> Self:
        """The same of codes whose rows use one atom each."""
        widths = [atom.latent_dim for atom in codes.topologies]
        labels = codes.gates.argmax(axis=1)
        points = np.zeros((len(labels), max(widths)))
        for k in np.unique(labels).tolist():
            rows = labels == k
            points[rows, :widths[k]] = codes.coordinates[k][rows]
        return cls(labels, codes.assignments[np.arange(len(labels)), labels], points,
                   codes.objective, codes.converged, codes.weights, codes.topologies)

    def dense(self) -> Codes:
        """The same as `Codes`."""
        return Codes(self.assignments, self.coordinates, self.gates, self.objective,
                     self.converged, self.weights, self.topologies)

    @property
    def assignments(self) -> Array:
        """Amplitudes (N, K)."""
        out = np.zeros((len(self), len(self.topologies)))
        out[np.arange(len(self)), self.labels] = self.amplitudes
        return out

    @property
    def gates(self) -> NDArray[np.bool_]:
        """The atom of every row (N, K)."""
        return np.asarray(self.labels[:, None] == np.arange(len(self.topologies)))

    @property
    def coordinates(self) -> list[Array]:
        """Where each row sits on each atom; zero on others than its own."""
        return [np.where((self.labels == k)[:, None], self.points[:, :atom.latent_dim], 0.0)
                for k, atom in enumerate(self.topologies)]

    def counts(self, assignment: Assignment) -> Index:
        """Rows (K,) of every atom."""
        return np.bincount(self.labels, minlength=len(self.topologies))

    def of_atom(self, k: int) -> tuple[Index, Array, Array]:
        """Rows of an atom, their amplitudes and coordinates."""
        rows = np.flatnonzero(self.labels == k)
        return (rows, self.amplitudes[rows],
                self.points[rows, :self.topologies[k].latent_dim])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> SparseCodes:
        rows = self._rows(rows)
        own = {name: getattr(self, name)[rows] for name in self.DESCRIPTION}
        return SparseCodes(**own, topologies=self.topologies)

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], topologies: tuple[Manifold, ...]
    ) -> Self:
        """Inverse of `arrays`."""
        own = {name: arrays[name] for name in cls.DESCRIPTION}
        return cls(**{**own, "converged": own["converged"].astype(bool)}, topologies=topologies)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays, by the names that they have in a file."""
        return {name: getattr(self, name) for name in self.DESCRIPTION}

    def check_shapes(self) -> None:
        """Refuse arrays that are not of numbers, or not of these rows and atoms.

        Raises
        ------
        ArtifactError
            Naming the array.
        """
        n = len(self.labels)
        width = max((atom.latent_dim for atom in self.topologies), default=0)
        for name, array in self.arrays().items():
            shape = (n, width) if name == "points" else (n,)
            if array.shape != shape or array.dtype.kind not in "fiub":
                raise ArtifactError(f"{name} of {n} rows has shape {array.shape} and type "
                                    f"{array.dtype}, expected {shape}")
        if self.labels.dtype.kind not in "iu" or (n and not (
                self.labels.min() >= 0 and self.labels.max() < len(self.topologies))):
            raise ArtifactError(f"labels must be numbers of {len(self.topologies)} atoms")
