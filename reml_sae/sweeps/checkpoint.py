"""Where a fit by sweeps is, on disk, from which it goes on to the same bits."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reml_sae.errors import ArtifactError, DataWarning, InputError
from reml_sae.io import read_artifact, write_artifact
from reml_sae.manifolds import Manifold
from reml_sae.sweeps.state import SweepState, kinds_of_atoms
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a fit is: what its next sweep over all rows does.

    Attributes
    ----------
    round : int
        Number of the sample from which the state came.
    state : SweepState
    values, recent : tuple of float
        Objectives of all sweeps over all rows, and of those since that sample.
    candidates : (N, C) int array or None
        Atoms of the rows; None before the first sweep.
    reroute : bool
        Whether rows look at all atoms beside these.
    settled : bool
        Whether sweeps ended because they gained little.
    best : Progress or None
        Where the objective was lowest, of the sweeps so far.
    """

    round: int
    state: SweepState
    values: tuple[float, ...] = ()
    recent: tuple[float, ...] = ()
    candidates: Index | None = None
    reroute: bool = True
    settled: bool = False
    best: Progress | None = None

    def with_best(self) -> Progress:
        """The same after another sweep, which may be the lowest."""
        if self.best is not None and self.best.recent[-1] < self.recent[-1]:
            return self
        return replace(self, best=replace(self, candidates=None, best=None))


class SweepCheckpoint:
    """The last `Progress` of a fit.

    Parameters
    ----------
    path : Path or None
        File that holds it; None keeps nothing.
    """

    def __init__(self, path: Path | None):
        self._path = path

    def write(self, progress: Progress) -> None:
        """Keep where the fit is; the last one is lost when this one is whole.

        Where it cannot be written the fit goes on without, and warns.
        """
        if self._path is None:
            return
        tensors, kept = _plain(progress)
        if progress.best is not None:
            lowest, kept["best"] = _plain(progress.best)
            tensors |= {f"best.{name}": values for name, values in lowest.items()}
        try:
            write_artifact(self._path, tensors, kept)
        except InputError as error:
            # a fit is worth more than what it could go on from
            self._path = None
            warnings.warn(f"the fit goes on without its checkpoint: {error}", DataWarning,
                          stacklevel=2)

    def read(self, atoms: Sequence[Manifold], n_rows: int) -> Progress | None:
        """Where a fit of these atoms to so many rows is; None where nothing of use is kept."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            tensors, kept = read_artifact(self._path)
            progress, lowest = _progress(tensors, kept, atoms, n_rows), kept["best"]
            if lowest is None:
                return progress
            own = {name.removeprefix("best."): values for name, values in tensors.items()
                   if name.startswith("best.")}
            return replace(progress, best=_progress(own, lowest, atoms, n_rows))
        except (InputError, LookupError, TypeError, ValueError, AttributeError) as error:
            logger.info("%s is of no use, and the fit is made anew: %s", self._path, error)
            return None


def _plain(progress: Progress) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and plain values, without those of the best."""
    state, tensors = progress.state, {}
    for number, (decoders, strengths) in enumerate(
            zip(state.decoders, state.strengths, strict=True)):
        tensors[f"decoders.{number}"], tensors[f"strengths.{number}"] = decoders, strengths
    if progress.candidates is not None:
        tensors["candidates"] = progress.candidates.astype(np.int32)
    return tensors, {
        "round": progress.round, "values": progress.values, "recent": progress.recent,
        "reroute": progress.reroute, "settled": progress.settled, "best": None,
        "dispersion": state.dispersion, "amplitudes": state.amplitude_precision}


def _progress(
    tensors: Mapping[str, Array], kept: Mapping[str, Any], atoms: Sequence[Manifold], n_rows: int
) -> Progress:
    """Inverse of `_plain`."""
    kinds = kinds_of_atoms(atoms)
    numbers = range(len(kinds))
    state = SweepState(
        kinds, tuple(tensors[f"decoders.{number}"] for number in numbers),
        tuple(tensors[f"strengths.{number}"] for number in numbers), kept["dispersion"],
        kept["amplitudes"])
    candidates = tensors.get("candidates")
    shapes = [((len(kind.atoms), kind.manifold.basis_size),
               (len(kind.atoms), len(kind.penalties))) for kind in kinds]
    if [(B.shape[:2], own.shape) for B, own in zip(
            state.decoders, state.strengths, strict=True)] != shapes or (
            candidates is not None and len(candidates) != n_rows):
        raise ArtifactError("it is of another fit")
    return Progress(kept["round"], state, tuple(kept["values"]), tuple(kept["recent"]),
                    None if candidates is None else candidates.astype(np.intp),
                    bool(kept["reroute"]), bool(kept["settled"]))
