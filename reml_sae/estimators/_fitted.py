"""`FittedSAE`: all that a fit found, as one frozen object under save, load, encode and reconstruct.

The state is in the units of the engine, what the user reads in those of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.diagnostics import Diagnostics, diagnose, looks_at_shape
from reml_sae.discovery.encode import Remembered, encode, remember
from reml_sae.discovery.fitting import Fitted
from reml_sae.discovery.judge import MoveRecord
from reml_sae.discovery.metric import posterior_moments
from reml_sae.discovery.pursuit import atom_grid
from reml_sae.discovery.record import SearchRecord
from reml_sae.engine import REMLTrace, Theta
from reml_sae.estimators._codes import Codes
from reml_sae.estimators._harvest import data_decoders, fitted_atoms, fitted_codes
from reml_sae.estimators._results import Atom, reconstruct
from reml_sae.estimators._units import Units
from reml_sae.families import Family, row_degrees
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.model import Integration
from reml_sae.models.sae.priors import without_null_priors
from reml_sae.models.sae.terms import check_rows
from reml_sae.rows import RowMap, SerialRows
from reml_sae.typing import Array

HIDDEN = ("beta", "zeta", "gate_counts", "family", "remembered", "units",
          "feature_names")
"""Fields that the estimator does not show as they are."""


@dataclass(frozen=True, eq=False, repr=False)
class FittedSAE:
    """A fitted SAE-manifold; `SAEManifold` documents what it shows of it.

    Attributes that `SAEManifold` does not show:

    beta : (M, p) array
        Decoders, in the units of the engine.
    zeta : (N, dim) array
        The rows' logits, in the chart of the assignment.
    gate_counts : ((K,) array, int)
        How many training rows use each atom, and of how many.
    family : Family
    units : Units
    remembered : Remembered
        Codes from which other rows are encoded.
    feature_names : tuple of str, or None
        Of the columns of the training rows, where these were a data frame.
    """

    atoms: list[Atom]
    assignment: Assignment
    family: Family
    penalties: tuple[PenaltyTerm, ...]
    integration: Integration
    units: Units
    intercept: Array
    beta: Array
    rho: Array
    rho_names: tuple[str, ...]
    zeta: Array
    gate_counts: tuple[Array, int]
    codes: Codes
    remembered: Remembered
    strengths: dict[str, float]
    dispersion: float
    criterion: float
    gradient: Array
    edf: float
    limits: tuple[tuple[str, str], ...]
    converged: bool
    message: str
    trace: REMLTrace
    diagnostics: Diagnostics
    search: SearchRecord
    feature_names: tuple[str, ...] | None

    takes_rows_at_once: ClassVar[bool] = True
    """Whether rows in memory are one chunk."""

    @classmethod
    def of(cls, fitted: Fitted, search: SearchRecord, units: Units,
           feature_names: tuple[str, ...] | None,
           over_flat: Sequence[float | None]) -> FittedSAE:
        """What the user reads and what encoding needs of the model that the search ended with."""
        model, result = fitted.model, fitted.result
        units = units.of_model(model)
        theta, rho = result.theta, result.rho
        codes = fitted_codes(model, theta, rho)
        second = posterior_moments(model, theta, rho) if looks_at_shape(model) else None
        found = diagnose(model, result, codes.assignments, second)
        nothing = search.nothing_found(sum(not atom.is_flat for atom in model.atoms))
        intercept = np.zeros(model.shape[1])
        if model.layout.has_intercept:
            intercept = units.offset + data_decoders(model, theta)[-1]
        return cls(
            atoms=fitted_atoms(model, result, units, codes.counts(model.assignment), over_flat),
            assignment=model.assignment, family=model.family,
            penalties=without_null_priors(model.terms),
            integration="quadrature" if model.by_quadrature else "laplace",
            units=units, intercept=intercept, beta=theta.beta, rho=rho,
            rho_names=model.outer.names, zeta=theta.xi[:, : model.assignment.dim],
            gate_counts=model.gate_counts, codes=codes,
            remembered=remember(model, theta, rho, search.policy.encode,
                                stopped=result.interrupted),
            strengths=model.strengths(rho),
            dispersion=model.family.dispersion(rho[model.outer.psi]) * units.scale**2,
            criterion=result.criterion, gradient=result.gradient, edf=result.edf,
            limits=result.limits, converged=result.converged,
            message=f"{result.message}; {nothing}" if nothing else result.message,
            trace=result.trace,
            diagnostics=replace(found, checks=(*found.checks, *search.checks())),
            search=search, feature_names=feature_names,
        )

    def __repr__(self) -> str:
        return (f"<FittedSAE of {len(self.codes)} rows, {len(self.atoms)} atoms: "
                f"{self.status()}>")

    @property
    def row_width(self) -> int:
        """Numbers a row in the widest array of its encoding."""
        grids = [len(atom_grid(atom.topology, self.search.policy.encode)) for atom in self.atoms]
        return max(len(self.units.mean), self.beta.shape[0], *grids)

    @property
    def row_map(self) -> RowMap:
        """What executes its chunks of rows where the user names nothing else."""
        return SerialRows()

    def status(self) -> str:
        """V, and whether the fit converged, on one line."""
        state = "converged" if self.converged else f"NOT CONVERGED ({self.message})"
        return f"V = {self.criterion:.4f} nats, {state}"

    def attributes(self) -> dict[str, object]:
        """What the estimator shows, by the names that it shows it under."""
        shown = {f"{item.name}_": getattr(self, item.name) for item in fields(self)
                 if item.name not in HIDDEN}
        units = self.units
        if self.feature_names is not None:
            shown["feature_names_in_"] = np.array(self.feature_names, object)
        return {**shown, "mean_": units.mean, "offset_": units.offset, "scale_": units.scale,
                "noise_": units.noise, "df_": row_degrees(self.family, self.rho),
                "data_digest_": units.digest, "n_features_in_": len(units.mean),
                "n_iter_": len(self.trace)}

    def model(self, data: Array) -> SAEManifoldModel:
        """The arrow model of standardised rows (N, p) that have no codes yet."""
        atoms = [atom.topology for atom in self.atoms]
        width = self.assignment.dim + sum(atom.latent_dim for atom in atoms)
        return SAEManifoldModel(
            data, atoms, self.penalties, np.ones((len(data), len(atoms)), bool),
            Theta(np.zeros((len(data), width)), self.beta), self.rho,
            assignment=self.assignment, unit=self.units.scale,
            spread=self.units.spread or self.units.scale, held_counts=self.gate_counts,
            family=self.family, offset=self.units.model_offset, noise=self.units.noise,
            integration=self.integration,
        )

    def training_model(self, data: Array) -> SAEManifoldModel:
        """The arrow model of the standardised training rows at their fitted state."""
        xi = np.concatenate([self.zeta, *self.codes.coordinates], axis=1)
        return self.model(data).with_state(Theta(xi, self.beta), self.rho, self.codes.gates)

    def encoded(self, data: Array) -> tuple[SAEManifoldModel, Theta]:
        """The arrow model of standardised rows with their codes, and its state.

        Raises
        ------
        InputError
            Where the family cannot have produced them, or a penalty holds values for another number
            of rows.
        """
        self.family.check(data)
        for term in self.penalties:
            check_rows(term, len(data))
        model = self.model(data)
        theta, active, _ = encode(model, model.initial_theta(), self.rho,
                                  self.search.policy.encode, search_from_state=False,
                                  remembered=self.remembered)
        return model.with_state(theta, self.rho, active), theta

    def encode(self, data: Array) -> Codes:
        """Codes of standardised rows."""
        model, theta = self.encoded(data)
        return fitted_codes(model, theta, self.rho)

    def decode_codes(self, codes: Codes) -> Array:
        """`decode` of all that codes hold."""
        return self.decode(codes.assignments, codes.coordinates, codes.gates)

    def steered(self, data: Array, k: int, step: Array) -> Array:
        """Rows (N, p), those that use atom k moved along it by a step (d,) of its coordinates."""
        codes = self.encode(self.units.standardised(data))
        users = codes.gates[:, k] & (codes.assignments[:, k] != 0.0)
        rows = codes[users]
        t, topology = rows.coordinates[k], self.atoms[k].topology
        moved = topology.retract(t, np.broadcast_to(step, t.shape))
        there = replace(rows, coordinates=[*rows.coordinates[:k], moved, *rows.coordinates[k + 1:]])
        out = data.copy()
        out[users] += self.decode_codes(there) - self.decode_codes(rows)
        return out

    def decode(
        self, assignments: Array, coordinates: Sequence[Array], gates: NDArray[np.bool_]
    ) -> Array:
        """Mean of the data (N, p) given what codes hold, in their units."""
        return self.family.mean(reconstruct(assignments, coordinates, gates, self.atoms,
                                            self.intercept, self.assignment))

    def remarks(self) -> list[str]:
        """Atoms that changed, that are no better than a flat, or that carry nothing."""
        out = [f"changed by the search, {move.kind}: {move.detail}; with that V is {_by(move)}"
               for move in self.search.moves
               if move.accepted and move.kind not in ("reshape", "regroup", "resize", "restart",
                                                      "reorder")]
        flat = all(atom.topology.is_flat for atom in self.atoms)
        otherwise = ("; noise='isotropic' leaves directions to flat atoms" if flat
                     and self.units.noise.kind != "isotropic" else "")
        out += [f"the atoms explain nothing: with {move.detail} and noise in their place V is "
                f"{_by(move)}. Do not interpret them. They were kept because their number was "
                f"asked for; n_atoms='auto' keeps those alone that are needed{otherwise}"
                for move in self.search.no_atom]
        out += [f"the atoms are no better than one flat: with {move.detail} V is {_by(move)}. Do "
                "not interpret them; noise='auto' holds such directions without an atom"
                for move in self.search.one_flat]
        out += [f"atom {move.atom} is no better than a flat: with one in its place "
                f"({move.detail}) V is {_by(move)}. It was kept because its shape was asked for; "
                "demote=True makes it flat, and a larger n_init looks harder for a curve where you "
                "know that there is one"
                for move in self.search.flat_twins]
        idle = [check.name.removesuffix(" occupancy") for check in self.diagnostics.checks
                if check.name.endswith("occupancy") and check.status == "fail"]
        if self.diagnostics.noise is not None and self.diagnostics.noise.at_floor:
            out.append("Z has no noise: the curves go through its rows up to rounding. Codes and "
                       "curves are right, but V is at a limit: do not compare it with that of "
                       "fits that leave noise")
        if idle:
            out.append(f"hardly any row uses {', '.join(idle)}; fit fewer atoms, or use "
                       "n_atoms='auto'")
        return out


def _by(move: MoveRecord) -> str:
    """How V changes with what a move proposes, in words."""
    fall = move.before - move.after
    if fall > 0.0:
        return f"{fall:.1f} nats lower, which is better"
    return f"only {-fall:.1f} nats higher, too little to tell"
