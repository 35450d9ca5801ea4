"""Fits by sweeps as `SAEManifold` has them: rows are read and encoded chunk by chunk.

A sweep integrates rows over nodes; what a user reads of a row is its mode, and V is that of the
engine's Laplace approximation at the sweeps' decoders (`models.sae.single.summed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from reml_sae.assignments import TopK
from reml_sae.engine import Theta
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._harvest import ROW_TOLERANCE
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.linalg import MeetsBlock
from reml_sae.manifolds import Manifold
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.gauge import Symmetry, kept_symmetries
from reml_sae.models.sae.labelled import LabelledRows, OwnSpans
from reml_sae.models.sae.mixture import Layout
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.rows import RowMap, SerialRows, ThreadRows
from reml_sae.sweeps import RowCodes, SweepPolicy, SweepState, get_backend, sweep
from reml_sae.sweeps.state import kinds_of_atoms
from reml_sae.typing import Array, Index

CHUNK_SHARE, LEAST_WIDTH = 16, 32
"""Parts of a row's numbers that count, and how many do at least: rows under many atoms are encoded
faster in large chunks, and threads need some."""


def symmetries_of(atoms: Sequence[Manifold], terms: Sequence[PenaltyTerm]) -> list[Symmetry]:
    """`kept_symmetries` of atoms whose penalties are those of their kind, once a kind."""
    known: dict[Manifold, list[Symmetry]] = {}
    own: dict[int, list[PenaltyTerm]] = {k: [] for k in range(len(atoms))}
    for term in terms:
        if term.target == "decoder":
            own[term.atom].append(term)
    for k, atom in enumerate(atoms):
        if atom not in known:
            alone = [replace(term, atom=0) for term in own[k]]
            known[atom] = kept_symmetries(Layout([atom], has_intercept=True), alone, 0, 2)
    return [(k, number, generator) for k, atom in enumerate(atoms)
            for _, number, generator in known[atom]]


def rho_of(structure: SAEStructure, state: SweepState) -> Array:
    """Outer parameters (n_rho,) of a structure at a state of the sweeps."""
    rho = np.zeros(len(structure.outer))
    strengths = {k: iter(values) for kind, own in zip(state.kinds, state.strengths, strict=True)
                 for k, values in zip(kind.atoms.tolist(), own, strict=True)}
    for term in structure.terms:
        rho[term.where] = np.log(next(strengths[term.atom]) if term.target == "decoder"
                                 else state.amplitude_precision)
    rho[structure.outer.psi] = np.log(state.dispersion)
    return rho


def state_of(structure: SAEStructure, beta: Array, rho: Array) -> SweepState:
    """Inverse of `rho_of`, with the decoders (M, p)."""
    kinds, where = kinds_of_atoms(structure.atoms), structure.layout.basis_slices
    strengths: list[list[float]] = [[] for _ in structure.atoms]
    precision = 1.0
    for term in structure.terms:
        value = float(np.exp(rho[term.where][0]))
        if term.target == "decoder":
            strengths[term.atom].append(value)
        else:
            precision = value
    return SweepState(
        kinds, tuple(np.stack([beta[where[k]] for k in kind.atoms]) for kind in kinds),
        tuple(np.array([strengths[k] for k in kind.atoms]) for kind in kinds),
        float(np.exp(rho[structure.outer.psi][0])), precision)


def at_modes(
    spans: OwnSpans, projected: Array, codes: RowCodes, policy: SweepPolicy, row_map: RowMap
) -> list[LabelledRows]:
    """Rows, each with the atom that a sweep gives it, at their modes; see `OwnSpans.rows`."""
    return [part.refined(policy.row_steps) for part in spans.rows(
        projected, codes.labels, codes.amplitudes, codes.points, row_map)]


def codes_at(parts: Sequence[LabelledRows], labels: Index, atoms: Sequence[Manifold]
             ) -> SparseCodes:
    """Codes of rows at their modes."""
    n = len(labels)
    out = SparseCodes(labels, np.zeros(n), np.zeros((n, max(atom.latent_dim for atom in atoms))),
                      np.zeros(n), np.zeros(n, bool), np.ones(n), tuple(atoms))
    for part in parts:
        rows, xi = part.kind.rows, part.batch.theta.xi
        out.amplitudes[rows], out.points[rows, :xi.shape[1] - 1] = np.exp(xi[:, 0]), xi[:, 1:]
        out.objective[rows] = part.objectives()
        out.converged[rows] = part.decrements() < ROW_TOLERANCE
    return out


@dataclass(frozen=True, eq=False, repr=False)
class SweptSAE(FittedSAE):
    """A fit by sweeps.

    Attributes beside those of `FittedSAE`, of which ``zeta`` and ``remembered`` have no rows:

    sweeps : SweepPolicy
        How it was made, and how rows are encoded.
    device : str
        Where rows find their atoms, as `get_backend` knows it; not part of a file.
    """

    sweeps: SweepPolicy
    device: str = "numpy"
    takes_rows_at_once: ClassVar[bool] = False

    @property
    def row_width(self) -> int:
        """Numbers a row by which its chunks are cut."""
        return max(LEAST_WIDTH, len(self.units.mean) // CHUNK_SHARE)

    @property
    def row_map(self) -> RowMap:
        """Threads: what a chunk takes is done by NumPy."""
        return ThreadRows()

    @cached_property
    def _without_rows(self) -> SAEManifoldModel:
        structure = structure_of([atom.topology for atom in self.atoms], self.penalties,
                                 self.units.scale, len(self.units.mean))
        return model_of(structure, self.beta, self.rho)

    @cached_property
    def _spans(self) -> OwnSpans:
        return OwnSpans.of(self._without_rows, self.beta, self.rho)

    @cached_property
    def _state(self) -> SweepState:
        return state_of(self._without_rows, self.beta, self.rho)

    def model(self, data: Array) -> SAEManifoldModel:
        """The arrow model of standardised rows (N, p) at their codes."""
        return self.encoded(data)[0]

    def training_model(self, data: Array) -> SAEManifoldModel:
        """The same."""
        model, theta = self.encoded(data)
        return model.with_state(theta, self.rho)

    def encoded(self, data: Array) -> tuple[SAEManifoldModel, Theta]:
        """The arrow model of standardised rows with their codes, and its state."""
        codes, model = self.encode(data), self._without_rows
        xi = np.zeros((len(data), len(self.atoms) + model.layout.n_coordinates))
        for k in range(len(self.atoms)):
            rows, amplitudes, points = codes.of_atom(k)
            xi[rows, k], xi[rows, model.coordinate_columns(k)] = np.log(amplitudes), points
        theta, active = Theta(xi, self.beta), codes.gates
        return model.with_changes(Z=data, active=active, theta=theta,
                                  metrics=np.zeros(len(data), np.intp)), theta

    def encode(self, data: Array) -> SparseCodes:
        """Codes of standardised rows."""
        backend = get_backend(self.device)
        codes = sweep(backend.array(data), self._state, backend,
                      n_candidates=self.sweeps.n_encoded, fineness=self.sweeps.fineness)[1]
        projected = self._spans.project(data, codes.labels)
        parts = at_modes(self._spans, projected, codes, self.sweeps, SerialRows())
        return codes_at(parts, codes.labels, [atom.topology for atom in self.atoms])

    def decode_codes(self, codes: Codes) -> Array:
        """Mean of the data (N, p) given codes, in their units."""
        if not isinstance(codes, SparseCodes):
            return super().decode_codes(codes)
        out = np.empty((len(codes), len(self.intercept)))
        for kind in self._state.kinds:
            mine = np.flatnonzero(np.isin(codes.labels, kind.atoms))
            mine = mine[np.argsort(codes.labels[mine], kind="stable")]
            features = kind.manifold.basis(codes.points[mine, :kind.manifold.latent_dim])
            features[:, 1:] *= codes.amplitudes[mine, None]
            counts = np.bincount(codes.labels[mine], minlength=len(self.atoms))[kind.atoms]
            coefficients = np.stack([self.atoms[k].coefficients for k in kind.atoms])
            out[mine] = MeetsBlock(counts).apply(features, coefficients) + self.intercept
        return out


def structure_of(
    atoms: Sequence[Manifold], terms: Sequence[PenaltyTerm], unit: float, p: int
) -> SAEStructure:
    """The structure of a fit by sweeps, without rows."""
    K = len(atoms)
    return SAEStructure(
        np.zeros((0, p)), atoms, terms, np.zeros((0, K), bool), assignment=TopK(K, 1), unit=unit,
        symmetries=symmetries_of(atoms, terms))


def model_of(structure: SAEStructure, beta: Array, rho: Array) -> SAEManifoldModel:
    """The arrow model of a structure without rows, to which rows come."""
    width = len(structure.atoms) + structure.layout.n_coordinates
    return SAEManifoldModel(
        structure.Z, structure.atoms, structure.terms, structure.active,
        Theta(np.zeros((0, width)), beta), rho, assignment=structure.assignment,
        unit=structure.unit, symmetries=structure.symmetries, integration="laplace")
