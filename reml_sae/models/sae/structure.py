"""What an SAE-manifold consists of: which parameters rows have, and which priors act on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from scipy.special import gammaln

from reml_sae.assignments import Amplitudes, Assignment, SoftmaxChart
from reml_sae.engine import Outer, OuterKey, Theta
from reml_sae.families import Family, Gaussian
from reml_sae.families.noise import Isotropic, RowNoise
from reml_sae.manifolds import Manifold
from reml_sae.manifolds._ambient import UnitVectors
from reml_sae.models.sae.gauge import Symmetry, kept_symmetries, move_atom
from reml_sae.models.sae.mixture import Layout, Mixture
from reml_sae.models.sae.priors import (
    check_terms,
    dense_terms,
    outer_of,
    with_null_priors,
    with_own_priors,
    without_null_priors,
)
from reml_sae.models.sae.remainder import Direction, Polar
from reml_sae.models.sae.terms import PenaltyTerm, placed
from reml_sae.rows import RowMap, SerialRows
from reml_sae.typing import Array, Index, Mask

STATE = frozenset({"Z", "active", "offset", "unit", "noise", "unit_weights", "spread", "metrics",
                   "held_counts", "row_map", "theta", "rho"})
"""Fields, of the model with its state too, from which the constructor makes no others."""
SHARED = "outer", "layout", "couples_rows"
"""What is computed once, and does not depend on these."""


@dataclass(frozen=True, eq=False)
class SAEStructure:
    """The data and the structure of an SAE-manifold: all but a state.

    Parameters
    ----------
    Z : (N, p) array
        Data, centred and divided by ``unit``.
    atoms : sequence of Manifold
    terms : sequence of PenaltyTerm
    active : (N, K) bool
        Which coordinates each row carries; the others are integrated out with their prior.
    assignment : Assignment, optional
        How rows use atoms; softmax at temperature 1 by default.
    unit : float
        Root mean square of the data in their own units; enters V as N p log(unit).
    decoder_precision : float
        Prior precision in standardised units of centres, and of decoders without a `decoder_ridge`.
    symmetries : list of Symmetry, optional
        Continuous symmetries of the atoms that no penalty breaks, where they are known.
    family : Family, optional
        Likelihood of the entries; Gaussian by default.
    offset : (p,) array, optional
        Part of the predictor that is not fitted; zero by default.
    noise : RowNoise, optional
        Covariance of the noise in whose metric Z is given, `noise.whiten_rows` of the data over
        ``unit``; isotropic by default.
    unit_weights : (N,) array, optional
        Weights of the rows in the mean square whose root ``unit`` is; equal by default.
    spread : float, optional
        Root mean square of the data in no metric, in their own units: that of the prior of centres,
        which all kinds of noise then price alike. ``unit`` by default.
    metrics : (N,) int array, optional
        Which of the metrics of ``noise`` each row of Z is in; the first by default.
    held_counts : ((K,) array, int), optional
        How many rows use each atom, of how many; counted in ``active`` by default. Sets what it
        costs a row to open a gate under a Beta-Bernoulli prior.
    held : mapping
        Outer parameters, by key, that are known and not searched.
    row_map : RowMap
        Executes what is computed row by row.
    """

    Z: Array
    atoms: Sequence[Manifold]
    terms: Sequence[PenaltyTerm]
    active: Mask
    _: KW_ONLY
    assignment: Assignment = None  # type: ignore[assignment]  # set below, as the next are
    unit: float = 1.0
    decoder_precision: float = 1.0
    symmetries: list[Symmetry] = None  # type: ignore[assignment]
    family: Family = None  # type: ignore[assignment]
    offset: Array = None  # type: ignore[assignment]
    noise: RowNoise = None  # type: ignore[assignment]
    unit_weights: Array | None = None
    spread: float = None  # type: ignore[assignment]
    metrics: Index = None  # type: ignore[assignment]
    held_counts: tuple[Array, int] | None = None
    held: Mapping[OuterKey, float] = field(default_factory=dict)
    row_map: RowMap = field(default_factory=SerialRows, repr=False)

    def __post_init__(self) -> None:
        self._set(atoms=tuple(self.atoms))
        if self.assignment is None:
            self._set(assignment=SoftmaxChart(len(self.atoms)))
        if self.family is None:
            self._set(family=Gaussian())
        if self.offset is None:
            self._set(offset=np.zeros(self.Z.shape[1]))
        if self.noise is None:
            self._set(noise=Isotropic(self.Z.shape[1]))
        if self.spread is None:
            self._set(spread=self.unit)
        if self.metrics is None:
            self._set(metrics=np.zeros(len(self.Z), np.intp))
        own = with_own_priors(self.assignment, self.terms)
        own = with_null_priors(own, len(self.Z))
        self._set(terms=placed(own, outer_of(own, self.family)))
        self._carry(self.active)
        check_terms(without_null_priors(self.terms), self.atoms, self.assignment, self.family,
                    self.Z.shape[1])
        if self.symmetries is None:
            self._set(symmetries=kept_symmetries(self.layout, self.terms, *self.shape))

    def _set(self, **values: object) -> None:
        """What the constructor makes of its arguments."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _carry(self, active: Mask) -> None:
        """Take an active set, which is held: much that is computed once depends on it."""
        active = active | self.always_carried
        active.flags.writeable = False
        self._set(active=active)

    def _copied(self, **changed: Any) -> Self:
        """The same with other values of fields from which the constructor makes no others."""
        copy, own = object.__new__(type(self)), vars(self)
        copy._set(**{name: own[name] for name in self.__dataclass_fields__},
                  **{name: own[name] for name in SHARED if name in own})
        copy._set(**changed)
        if "active" in changed:
            copy._carry(copy.active)
        return copy

    def with_changes(self, **changed: Any) -> Self:
        """The same with other values of some fields; new terms may keep other symmetries.

        Rows that use other atoms go into the metric of these.
        """
        if "terms" in changed:
            changed.setdefault("symmetries", None)
        if "active" in changed and "noise" not in changed:
            metrics = self.noise.metrics(changed["active"], self.metrics)
            if metrics is not self.metrics:
                changed |= {"metrics": metrics, "Z": self._in_metrics(metrics)}
        same_rows = len(changed.get("Z", self.Z)) == len(self.Z)
        if same_rows and changed.keys() <= STATE:
            return self._copied(**changed)
        return replace(self, **changed)

    def _in_metrics(self, metrics: Index) -> Array:
        """The rows, each in one of the metrics of the noise."""
        moved = np.flatnonzero(metrics != self.metrics)
        Z = self.Z.copy()
        Z[moved] = self.noise.whiten_rows(
            self.noise.colour_rows(Z[moved], self.metrics[moved]), metrics[moved])
        return Z

    def in_metric(self, metric: int) -> Self:
        """The same with all rows in one metric of the noise, whichever atom they use."""
        if (self.metrics == metric).all():
            return self
        metrics = np.full(len(self.Z), metric)
        return self._copied(metrics=metrics, Z=self._in_metrics(metrics))

    @property
    def coloured(self) -> Array:
        """The rows (N, p) in no metric, in units of ``unit``."""
        return self.noise.colour_rows(self.Z, self.metrics)

    # --- outer parameters ------------------------------------------------------------------------

    @cached_property
    def outer(self) -> Outer:
        """What rho consists of."""
        return outer_of(self.terms, self.family).holding(self.held)

    @property
    def rho_names(self) -> tuple[str, ...]:
        """Names of the outer parameters; those of the family (standardised units) are last."""
        return self.outer.names

    def scale_floor(self, rho: Array) -> float:
        """phi of `scale`: the dispersion, or one where the family has none."""
        return self.family.dispersion(rho[self.outer.psi]) if self.family.has_dispersion else 1.0

    def centred_decoders(self, beta: Array) -> Array:
        """Decoders (M, p) in no metric, in units of ``unit``, with the intercept in their centres.

        Where a row has the centre of one atom, whole, the model is the same; an intercept on its
        own is not the same in two metrics.
        """
        out = np.zeros_like(beta)
        for k, where in enumerate(self.layout.basis_slices):
            own = beta[where].copy()
            own[0] += beta[-1]
            out[where] = np.exp(0.5 * self.noise.log_size(k)) * self.noise.of_atom(k).colour(own)
        return out

    @cached_property
    def constant(self) -> float:
        """Nats of the units of the data, and those that the noise's own parameters cost."""
        n, p = self.shape
        sizes = 0.5 * p * float(self.noise.log_sizes(self.metrics).sum())
        return float(n * p * np.log(self.unit)) + sizes + self.noise.rows_cost(self.metrics)

    # --- sizes and places ------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(N, p)."""
        return self.Z.shape[0], self.Z.shape[1]

    @cached_property
    def layout(self) -> Layout:
        """Where each atom sits in the coordinates and in the basis."""
        return Layout(self.atoms, has_intercept=self.assignment.has_intercept)

    @property
    def n_carried(self) -> int:
        """Parameters of decoders and rows: M p, and those that rows carry."""
        return int(self.carried.sum()) + self.layout.basis_size * self.shape[1]

    def coordinate_columns(self, k: int) -> slice:
        """Columns of xi that hold the coordinates of atom k."""
        where = self.layout.coordinate_slices[k]
        return slice(self.assignment.dim + where.start, self.assignment.dim + where.stop)

    @property
    def always_carried(self) -> Mask:
        """Atoms (K,) whose coordinates every row carries, because a penalty couples them."""
        coupled = {term.atom for term in self.terms if term.couples_rows}
        return np.array([k in coupled for k in range(len(self.atoms))])

    @cached_property
    def active_coordinates(self) -> Mask:
        """Which coordinates (N, D) a row carries."""
        return self.active[:, self.layout.coordinate_atom]

    @cached_property
    def is_open(self) -> Mask:
        """Which atoms (N, K) enter a row's predictor."""
        return self.assignment.open_mask(self.active)

    @cached_property
    def carried(self) -> Mask:
        """Which local parameters (N, q) a row has; the others are held."""
        return np.concatenate(
            [self.assignment.carried(self.active), self.active_coordinates], axis=1)

    # --- priors ----------------------------------------------------------------------------------

    @cached_property
    def row_terms(self) -> list[PenaltyTerm]:
        """Penalties on rows."""
        return [term for term in self.terms if term.on_rows]

    @cached_property
    def couples_rows(self) -> bool:
        """Whether a penalty couples the rows."""
        return any(term.couples_rows for term in self.terms)

    @property
    def dense_terms(self) -> list[PenaltyTerm]:
        """Decoder penalties that are no quadratic form of every output alike."""
        return dense_terms(self.terms)

    @property
    def has_dense_border(self) -> bool:
        """Whether the border is no product over outputs.

        A decoder penalty may differ between outputs, or the family's weights.
        """
        return bool(self.dense_terms) or not self.family.row_weights

    @property
    def has_gaussian_decoder(self) -> list[bool]:
        """Which decoders have the Gaussian prior, not that of a penalty that is itself proper."""
        owned = {term.atom for term in self.dense_terms if term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

    @property
    def has_manifold_prior(self) -> list[bool]:
        """Whether an atom's coordinates have the prior of its manifold, not that of a penalty."""
        owned = {term.atom for term in self.terms
                 if term.target == "coordinates" and term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

    @cached_property
    def bounded(self) -> list[Polar | Direction]:
        """Of every atom that has angles, or is one of directions, with their uniform prior."""
        out: list[Polar | Direction] = []
        for k, atom in enumerate(self.atoms):
            if not self.has_manifold_prior[k]:
                continue
            first = self.coordinate_columns(k).start
            if isinstance(atom, UnitVectors):
                out.append(Direction(first + np.arange(atom.latent_dim), atom.antipodal))
            elif atom.angular_axes:
                alone = len(atom.angular_axes) == atom.latent_dim
                stretched = alone and self.assignment.is_log_normal and self.family.row_weights
                out.append(Polar(k if stretched else None, first + np.array(atom.angular_axes)))
        return out

    def decoder_gram(self, rho: Array) -> list[Array]:
        """Prior precision S_k(rho) of every decoder, (M_k, M_k), and of the intercept."""
        own, gaussians = self.noise.decoder_precisions(len(self.atoms)), self.has_gaussian_decoder
        sized = {term.atom for term in self.terms if term.is_decoder_size}
        grams = [self.decoder_precision * np.diag(
            [0.0] + [float(gaussian and k not in sized)] * (atom.basis_size - 1))
            for k, (atom, gaussian) in enumerate(zip(self.atoms, gaussians, strict=True))]
        for term in self.terms:
            if term.is_quadratic_decoder:
                grams[term.atom] = grams[term.atom] + term.penalty.gram(term.rho(rho))
        grams = [scale * gram for scale, gram in zip(own, grams, strict=True)]
        centres = self.centre_precisions
        for gram, centre, gaussian in zip(grams, centres, gaussians, strict=True):
            gram[0, 0] += centre * gaussian
        if self.layout.has_intercept:
            # of centres and intercept together, the volume of the prior is then that of one unit
            grams.append(np.full((1, 1), centres.mean()))
        return grams

    @cached_property
    def centre_precisions(self) -> Array:
        """Prior precisions (K,) of the atoms' constants, each in the metric of its rows."""
        own = np.exp([self.noise.log_size(k) for k in range(len(self.atoms))])
        return np.asarray(self.decoder_precision * (self.unit / self.spread) ** 2 * own)

    @property
    def gate_counts(self) -> tuple[Array, int]:
        """How many rows use each atom (K,), and of how many."""
        if self.held_counts is not None:
            return self.held_counts
        return self.active.sum(axis=0).astype(float), len(self.active)

    def opening_costs(self, rho: Array) -> Array:
        """Nats (K,) that the prior on gates charges a row for using an atom."""
        for term in self.terms:
            if term.target == "gates":
                costs: Array = term.penalty.opening_cost(*self.gate_counts, term.rho(rho))
                return costs
        return np.zeros(len(self.atoms))

    @property
    def log_multiplicity(self) -> float:
        """Log of how many equal modes the decoders have beside the continuous gauge.

        Mirror images of every atom that rows use, and the permutations of atoms of one kind.
        """
        used = np.flatnonzero(self.active.any(axis=0)).tolist()
        shaped = {term.atom for term in self.terms if term.target == "coordinates"}
        total = float(sum(self.atoms[k].log_multiplicity for k in used if k not in shaped))
        if any(term.target == "gates" for term in self.terms):  # the prior orders the atoms
            return total
        return total + log_permutations(self.atoms, used)

    # --- predictor -------------------------------------------------------------------------------

    def logits(self, theta: Theta) -> Array:
        """Logits z (N, K)."""
        return self.assignment.logits(theta.xi[:, : self.assignment.dim])

    def amplitudes(self, theta: Theta) -> Amplitudes:
        """Amplitudes of the atoms that are open."""
        return self.assignment.amplitudes(self.logits(theta), self.is_open)

    def mixture(self, theta: Theta, coefficients: Array, order: int) -> Mixture:
        """Linearise at a state."""
        centres = self.assignment.centres(self.active)
        return Mixture(self.layout, self.amplitudes(theta), theta.xi[:, self.assignment.dim:],
                       self.active, coefficients, order, centres)

    def scaled_basis(self, theta: Theta) -> tuple[Amplitudes, Array]:
        """Amplitudes of (N, K), and the features phi (N, M)."""
        mixture = self.mixture(theta, np.zeros((self.layout.basis_size, 0)), order=0)
        return mixture.amplitudes, mixture.features()

    def retract(self, theta: Theta, step: Theta, factor: float = 1.0) -> Theta:
        """Move along a step, on the manifolds of the coordinates and the orbits of the gauge."""
        xi = theta.xi + factor * step.xi
        beta = theta.beta + factor * step.beta
        for k, atom in enumerate(self.atoms):
            t, b = self.coordinate_columns(k), self.layout.basis_slices[k]
            xi[:, t], beta[b] = move_atom(atom, theta.xi[:, t], theta.beta[b],
                                     factor * step.xi[:, t], factor * step.beta[b])
        return Theta(xi, beta)

    def move_rows(self, xi: Array, step: Array) -> Array:
        """Move the rows alone, on the manifolds of their coordinates: (N, q)."""
        out = xi + step
        for k, atom in enumerate(self.atoms):
            t = self.coordinate_columns(k)
            out[:, t] = atom.retract(xi[:, t], step[:, t])
        return out

    # --- some of the rows ------------------------------------------------------------------------

    def rows(self, index: Index) -> Self:
        """The structure of some of the rows."""
        if len(index) == len(self.Z):
            return self
        if self.couples_rows:  # the priors of what theirs leave flat are those of these rows
            return replace(self, **self._of_rows(index))
        return self._copied(**self._of_rows(index))

    def _of_rows(self, index: Index) -> dict[str, Any]:
        """Fields that differ between rows, for some of them."""
        terms = tuple(self.restricted(term, index) if term.on_rows else term
                      for term in self.terms)
        return {"Z": self.Z[index], "metrics": self.metrics[index],
                "active": self.active[index], "terms": terms,
                "family": self.family.restrict(index, self.shape),
                "unit_weights": None if self.unit_weights is None else self.unit_weights[index],
                "held_counts": self.gate_counts}

    def restricted(self, term: PenaltyTerm, rows: Index) -> PenaltyTerm:
        """A row-wise term for some of the rows."""
        return replace(term, penalty=term.penalty.restrict(rows, len(self.Z)))


def log_permutations(atoms: Sequence[Manifold], used: Sequence[int]) -> float:
    """Log of the number of ways in which atoms of one kind can change places, idle ones alike."""
    kinds, total = [repr(atom) for atom in atoms], 0.0
    for kind in set(kinds):
        alike = [k for k in range(len(kinds)) if kinds[k] == kind]
        idle = len(alike) - len(set(alike) & set(used))
        total += float(gammaln(len(alike) + 1) - gammaln(idle + 1))
    return total
