"""`Codes`: the local parameters of rows, as arrays, a table and a file.

A table has, atom by atom, the amplitude a and then a times the point on the manifold in its ambient
form (`Manifold.ambient`), so that columns move continuously with the row and add up over atoms:
zero where the row does not use the atom. Where a row carries no coordinate of an atom that it does
use, the point is zero too, as the mean of an unresolved direction is.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.diagnostics.checks import atom_counts
from reml_sae.errors import ArtifactError, InputError, require
from reml_sae.io import read_artifact, write_artifact, write_bytes_atomically
from reml_sae.manifolds import Manifold, get_manifold
from reml_sae.typing import Array, Index

KIND = "Codes"
OF_ROWS = {
    "objective": "(N,) the row's part of the penalised negative log density, in nats",
    "converged": "(N,) whether the row is at a minimum of its objective",
    "weights": "(N,) how much the row counts in the fit",
}
"""What arrays of a file are that all codes have."""
ARRAYS, TABLES = (".npz", ".safetensors"), (".csv", ".parquet")
"""Files that `Codes.load` reads, and tables for other programs."""


@dataclass(frozen=True, eq=False, repr=False)
class Codes:
    """Local parameters of rows; a slice, a mask or numbers of rows in brackets give some of them.

    Attributes
    ----------
    assignments : (N, K) array
        Amplitudes a_ik; under softmax the rows sum to 1, under gates atoms that a row does not
        use have 0.
    coordinates : list of K arrays (N, d_k)
        Where each row sits on each atom; meaningful where ``gates`` is true.
    gates : (N, K) bool
        Which atoms' coordinates a row carries; elsewhere the coordinate is integrated out with
        its prior, and the reconstruction uses the atom's mean. True of points, which have none.
    objective : (N,) array
        Each row's part of the penalised negative log density, in nats.
    converged : (N,) bool
        Whether the row is at a minimum of its objective.
    weights : (N,) array
        How much the row counts in the fit beside one that it describes well: near 0 for rows that
        it does not describe. 1 where ``row_noise`` is "gaussian".
    topologies : tuple of K Manifold
        Shapes of the atoms.
    """

    assignments: Array
    coordinates: list[Array]
    gates: NDArray[np.bool_]
    objective: Array
    converged: NDArray[np.bool_]
    weights: Array
    topologies: tuple[Manifold, ...]

    DESCRIPTION: ClassVar[Mapping[str, str]] = {
        "assignments": "(N, K) amplitudes of the atoms; 0 where a gate is shut",
        "gates": "(N, K) whether the row carries a coordinate of the atom",
        "coordinates_k": "(N, d_k) place on atom k; meaningful where gates are true",
        **OF_ROWS,
    }

    def __len__(self) -> int:
        return len(self.assignments)

    def __repr__(self) -> str:
        lost = int((~self.converged).sum())
        shapes = ", ".join(atom.name for atom in self.topologies[:4])
        return (f"<Codes of {len(self)} rows on {len(self.topologies)} atoms ({shapes}"
                f"{', ..' if len(self.topologies) > 4 else ''}), "
                f"{f'{lost} rows not converged' if lost else 'all rows converged'}>")

    def __getitem__(self, rows: Any) -> Codes:
        """Codes of some rows: a slice, a mask, numbers, or one number, which gives one row."""
        rows = self._rows(rows)
        return Codes(self.assignments[rows], [t[rows] for t in self.coordinates],
                     self.gates[rows], self.objective[rows], self.converged[rows],
                     self.weights[rows], self.topologies)

    def _rows(self, rows: Any) -> Any:
        """What indexes arrays of rows, of what stands in brackets."""
        if isinstance(rows, int | np.integer):
            rows = range(len(self))[rows]  # an IndexError where there is none
            return slice(rows, rows + 1)
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.ndim != 1 or not (rows.dtype.kind in "iub" or rows.size == 0):
                raise InputError("codes take a slice, a mask or the numbers of rows in brackets, "
                                 f"got an array of shape {rows.shape} and dtype {rows.dtype}")
            rows = rows if rows.size else rows.astype(np.intp)
        return rows

    def counts(self, assignment: Assignment) -> Index:
        """Rows (K,) that use each atom; of a mixture, those that use it most."""
        return atom_counts(assignment, self.assignments, self.gates)

    def of_atom(self, k: int) -> tuple[Index, Array, Array]:
        """Rows that carry an atom, their amplitudes and coordinates."""
        rows = np.flatnonzero(self.gates[:, k] & (self.assignments[:, k] != 0.0))
        return rows, self.assignments[rows, k], self.coordinates[k][rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("codes are several arrays, and one array of them is a copy")
        return self.to_array().astype(dtype or float, copy=False)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of `to_array`, such as ``atom0_amplitude``, ``atom0_cos``."""
        return column_names(self.topologies)

    def to_array(self) -> Array:
        """Table (N, columns): each atom's amplitude, and the amplitude times the point on it."""
        columns = []
        for k, atom in enumerate(self.topologies):
            amplitude, on = self.assignments[:, [k]], self.gates[:, k]
            point = np.zeros((len(self), len(atom.ambient_names)))
            point[on] = atom.ambient(self.coordinates[k][on])
            columns += [amplitude, amplitude * point]
        return np.concatenate(columns, axis=1)

    def to_frame(self) -> Any:
        """Pandas data frame of `to_array`, with ``objective``, ``converged`` and ``weight``.

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        pandas = require("pandas", "frames", "Codes.to_frame")
        frame = pandas.DataFrame(self.to_array(), columns=self.column_names)
        return frame.assign(objective=self.objective, converged=self.converged,
                            weight=self.weights)

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the codes to one file, atomically.

        Parameters
        ----------
        path : path
            ``.npz`` and ``.safetensors`` hold all arrays with a description, and `load` reads them.
            ``.csv`` and ``.parquet`` hold the table of `to_frame`.

        Raises
        ------
        InputError
            Where the suffix is another one, or the folder does not exist.
        """
        suffix = check_suffix(path)
        if suffix in ARRAYS:
            arrays = self.arrays()
            about = {"kind": KIND, "arrays": dict(self.DESCRIPTION),
                     "topologies": [atom.to_config() for atom in self.topologies]}
            if suffix == ".safetensors":
                write_artifact(path, arrays, about)
                return
            arrays["description"] = np.array(json.dumps(about))
        content = io.BytesIO()
        if suffix == ".npz":
            np.savez(content, allow_pickle=False, **arrays)
        elif suffix == ".csv":
            content.write(self.to_frame().to_csv(index=False).encode())
        else:
            require("pyarrow", "frames", "a .parquet file")
            self.to_frame().to_parquet(content, engine="pyarrow", index=False)
        write_bytes_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Codes that `save` wrote to .npz or .safetensors.

        Raises
        ------
        InputError
            Where there is no such file, or it is a table.
        ArtifactError
            Where it cannot be read or holds something else.
        """
        name = os.fspath(path)
        if check_suffix(path) not in ARRAYS:
            raise InputError(f"path={name!r} is a table, which lacks the coordinates as they are; "
                             f"save the codes to {' or '.join(ARRAYS)} to load them again")
        arrays, about = (read_artifact if name.endswith(".safetensors") else _read_npz)(path)
        if not isinstance(about, Mapping) or about.get("kind") != KIND:
            raise ArtifactError(f"path={name!r} does not hold codes; write them with Codes.save")
        try:
            topologies = tuple(get_manifold(config) for config in about["topologies"])
            form = next((form for form in Codes.__subclasses__()
                         if form.DESCRIPTION.keys() == arrays.keys()), Codes)
            found = form.of_arrays(arrays, topologies)
            found.check_shapes()
            for name, array in found.arrays().items():
                if not np.isfinite(array).all():
                    raise ArtifactError(f"{name} holds what is no finite number")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"path={name!r} holds no whole codes: {error!r}") from error
        return found

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Self:
        """The rows of all parts, in their form."""
        arrays = [part.arrays() for part in parts]
        return cls.of_arrays({name: np.concatenate([array[name] for array in arrays])
                              for name in arrays[0]}, parts[0].topologies)

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], topologies: tuple[Manifold, ...]
    ) -> Self:
        """Inverse of `arrays`."""
        return cls(arrays["assignments"],
                   [arrays[f"coordinates_{k}"] for k in range(len(topologies))],
                   arrays["gates"].astype(bool), arrays["objective"],
                   arrays["converged"].astype(bool), arrays["weights"], topologies)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays, by the names that they have in a file."""
        return {"assignments": self.assignments, "gates": self.gates, "objective": self.objective,
                "converged": self.converged, "weights": self.weights,
                **{f"coordinates_{k}": t for k, t in enumerate(self.coordinates)}}

    def check_shapes(self) -> None:
        """Refuse arrays that are not of numbers, or not of these rows and atoms.

        Raises
        ------
        ArtifactError
            Naming the array.
        """
        n, k = len(self.assignments), len(self.topologies)
        wanted = {"assignments": (n, k), "gates": (n, k),
                  **{f"coordinates_{j}": (n, atom.latent_dim)
                     for j, atom in enumerate(self.topologies)}}
        for name, array in self.arrays().items():
            shape = wanted.get(name, (n,))
            if k == 0 or array.shape != shape or array.dtype.kind not in "fiub":
                raise ArtifactError(f"{name} of {k} atoms has shape {array.shape} and type "
                                    f"{array.dtype}, expected {shape}")


def check_suffix(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Suffix of a file to which codes can be written.

    Raises
    ------
    InputError
        Where it is another one.
    """
    suffix = Path(path).suffix
    if suffix not in ARRAYS + TABLES:
        raise InputError(f"{argument}={os.fspath(path)!r} must end in "
                         f"{', '.join((*ARRAYS, *TABLES))}")
    return suffix


def column_names(topologies: Sequence[Manifold]) -> list[str]:
    """Names of the columns of atoms of these shapes, in the order of `Codes.to_array`."""
    return [f"atom{k}_{name}" for k, atom in enumerate(topologies)
            for name in ("amplitude", *atom.ambient_names)]


def read_columns(
    X: Array, topologies: Sequence[Manifold], assignment: Assignment
) -> tuple[Array, list[Array], NDArray[np.bool_]]:
    """Assignments (N, K), coordinates and gates (N, K) of a table (N, columns).

    A point beside its manifold is moved to the nearest one on it.

    Raises
    ------
    InputError
        Naming the first row and atom whose point has no place on the manifold.
    """
    amplitudes, coordinates, gates, at = [], [], [], 0
    for k, atom in enumerate(topologies):
        width = len(atom.ambient_names)
        amplitude, scaled = X[:, at], X[:, at + 1:at + 1 + width]
        at += 1 + width
        used = amplitude != 0.0
        placed = np.any(scaled != 0.0, axis=1)
        _refuse(np.asarray(placed & ~used), k, "has amplitude 0 and a point that is not 0")
        on = used if assignment.chooses_support else placed
        if atom.latent_dim == 0:
            on = np.full(len(X), assignment.is_mixture)
        t = np.zeros((len(X), atom.latent_dim))
        t[on] = atom.from_ambient(scaled[on] / amplitude[on, None])
        _refuse(np.any(np.isnan(t), axis=1), k, f"has no direction that is a place on {atom.label}")
        amplitudes.append(amplitude)
        coordinates.append(t)
        gates.append(on)
    return np.column_stack(amplitudes), coordinates, np.column_stack(gates)


def _refuse(bad: NDArray[Any], k: int, why: str) -> None:
    if bad.any():
        raise InputError(f"X: row {int(bad.argmax())} {why} at atom {k}; give columns as transform "
                         "returns them")


def _read_npz(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], Mapping[str, Any]]:
    name = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"path={name!r}: there is no such file")
    try:
        # numpy leaves a file open that it opened itself and cannot read
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as handle:
            arrays = {key: handle[key] for key in handle.files}
        return arrays, json.loads(str(arrays.pop("description", "{}")))
    except (ValueError, OSError, EOFError, BadZipFile, RuntimeError) as error:
        # RuntimeError: deeply nested JSON, and archives that are said to be encrypted
        raise ArtifactError(f"path={name!r} cannot be read ({error}); it may be truncated"
                            ) from error
