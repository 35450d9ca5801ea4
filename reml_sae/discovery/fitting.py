"""From codes to a rough fit: the model at given codes, and a few Fellner-Schall steps of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reml_sae.assignments import Assignment, get_assignment
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.encode import active_set, encode, squared_speeds
from reml_sae.discovery.journal import Journal
from reml_sae.discovery.metric import (
    MetricRows,
    central_weights,
    noise_of_moment,
    observed_noise,
    start_noise,
)
from reml_sae.discovery.policy import EncodePolicy, SearchPolicy, SettlePolicy
from reml_sae.discovery.stages import Stages
from reml_sae.engine import Deadline, FitResult, OuterKey, OuterStatus, Theta, TraceRow
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.families import Family
from reml_sae.families.noise import Factors, NoiseKind, OneOf
from reml_sae.manifolds import Manifold
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.defaults import default_terms
from reml_sae.models.sae.model import Integration
from reml_sae.models.sae.priors import with_own_priors
from reml_sae.models.sae.start import solve_beta, start_psi
from reml_sae.relaxations.joint_search import Tries
from reml_sae.typing import Array, Curvature

logger = logging.getLogger("reml_sae")


@dataclass(frozen=True)
class Fitted:
    """A model with its structure settled, and the fit at it.

    Attributes
    ----------
    model : SAEManifoldModel
    result : FitResult
    tries : Tries or None
        Of the search that found its start. The rough fit from there has them; who fits it on has
        to hand them on.
    """

    model: SAEManifoldModel
    result: FitResult
    tries: Tries | None = None

    def observed(self) -> Fitted:
        """The fit with its V by the second moment that it leaves to its noise (`Factor`)."""
        model = observed_noise(self.model, self.result.theta, self.result.rho)
        if model is self.model:
            return self
        return Fitted(model, self.result.raised(model.constant - self.model.constant))

    @property
    def rows(self) -> MetricRows:
        """The rows of the model in the metric of their noise."""
        return MetricRows.of(self.model)

    @property
    def amplitudes(self) -> Array:
        """Of the rows on the atoms, (N, K)."""
        return self.model.assignment.amplitudes(
            self.model.logits(self.result.theta), self.model.is_open).a

    @property
    def codes(self) -> Candidate:
        """Support, amplitudes and coordinates of the rows."""
        return Candidate(self.model.active, self.amplitudes,
                         self.result.theta.xi[:, self.model.assignment.dim:])


@dataclass(frozen=True)
class Settings:
    """What the fit needs to know beside the data and the atoms."""

    bind: Callable[[Sequence[Manifold]], Sequence[PenaltyTerm]]
    """Penalties of a model with these atoms."""
    assign: Callable[[int], Assignment]
    """Assignment of a model with this many atoms."""
    curvature: Curvature
    max_outer: int
    """Bound on the rows of the trace of the model that is returned, annealing apart."""
    tol: float
    n_init: int
    callbacks: Sequence[Callable[[TraceRow], object]]
    family: Family
    offset: Array
    integration: Integration = "auto"
    noise: NoiseKind = "isotropic"
    """Kind of the noise of Gaussian rows, see `families.noise`."""
    per_atom: bool = False
    """Whether atoms may have noises of their own; every row uses one."""
    sizes_open: bool = False
    """Whether the number of basis functions of atoms is to be chosen."""
    deadline: Deadline = field(default_factory=Deadline)
    journal: Journal = field(default_factory=Journal)
    """Of the REML fits that are made."""
    stages: Stages = field(default_factory=Stages)
    """Whom to tell where the search is."""
    policy: SearchPolicy = field(default_factory=SearchPolicy)

    def plain(self) -> Settings:
        """The same for noise without a shape."""
        return replace(self, noise="isotropic")

    def of_shares(self) -> Settings:
        """The same for rows that share their atoms, a sole one whole, and default penalties."""
        return self.assigned(lambda n_atoms: get_assignment("softmax", n_atoms))

    def assigned(self, assign: Callable[[int], Assignment]) -> Settings:
        """The same with the assignment of so many atoms, and default penalties."""
        return replace(self, assign=assign,
                       bind=lambda atoms: default_terms(atoms, assign(len(atoms))))

    def with_chains(self, most: int) -> Settings:
        """The same with so many chains of moves at most, in a search among atoms."""
        relaxation = self.policy.relaxation
        relaxation = replace(relaxation, joint=replace(relaxation.joint, most_chains=most))
        return replace(self, policy=replace(self.policy, relaxation=relaxation))

    def of_scores(self) -> Settings:
        """The same for scores of the rows: what noise is told of their columns is not theirs."""
        if isinstance(self.noise, Factors):
            return replace(self, noise="factor")
        return replace(self, noise=replace(self.noise, still=())) if isinstance(
            self.noise, OneOf) else self


def working_scale(Z: Array, settings: Settings) -> Array:
    """Data on the scale of the predictor, centred, in units of its root mean square: (N, p).

    Rows of unequal scale that are longer than most are drawn in.
    """
    if settings.family.equal_weights:
        return Z
    if settings.family.row_weights:
        weights = central_weights(Z, settings.family)
        return np.sqrt(np.minimum(weights / np.median(weights), 1.0))[:, None] * Z
    working = settings.family.initial_eta(Z) - settings.offset
    working = working - working.mean(axis=0)
    return working / max(float(np.sqrt(np.mean(working**2))), np.finfo(float).tiny)


def stopped(fitted: Fitted, status: OuterStatus) -> Fitted:
    """The fit, marked as one after which the search was stopped."""
    return replace(fitted, result=fitted.result.ended(status))


def lower(present: Fitted, trial: Fitted) -> Fitted:
    """The one with the lower V; an interrupt of the trial is kept."""
    if trial.result.criterion < present.result.criterion:
        return trial
    return stopped(present, trial.result.status) if trial.result.interrupted else present


def rough_options(policy: SettlePolicy) -> dict[str, Any]:
    """Options of `fit_reml` for a rough fit."""
    return {"curvature": "majorizer", "rough": True, "max_fellner_schall": policy.rough_steps}


def rough_fit(
    model: SAEManifoldModel, settings: Settings, name: str, **options: int
) -> Fitted | None:
    """A few Fellner-Schall steps; None where the start leads to no usable state.

    Its noise falls far below that of its start, and the nodes of a quadrature grow with it: where
    they are many at once, the rows are left to Laplace's method as yet.
    """
    policy = settings.policy.settle
    model = decided(model, settings)
    if settings.integration == "auto" and model.by_quadrature:
        rows = model.row_quadrature(model.theta.beta, model.rho)
        if rows.n_nodes > (policy.rough_lines if rows.has_linear else policy.rough_nodes):
            model = model.with_integration("laplace")
    try:
        result = settings.journal.fit(
            model, **rough_options(policy), **options,
            max_outer=settings.max_outer, max_time=settings.deadline,
            callbacks=settings.callbacks)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        logger.info("%s was given up: %s", name, error)
        return None
    logger.info("%s: V = %.4f", name, result.criterion)
    return Fitted(model.settled(), result).observed()


def model_from_codes(
    rows: MetricRows, atoms: Sequence[Manifold], settings: Settings, codes: Candidate,
    known: Mapping[OuterKey, float] | None = None,
) -> SAEManifoldModel:
    """Arrow model at given codes, with the best decoders for them.

    Parameters
    ----------
    rows : MetricRows
    atoms : sequence of Manifold
    settings : Settings
    codes : Candidate
    known : mapping, optional
        Outer parameters by key; the others start where searches start.
    """
    family, assignment, Z = settings.family, settings.assign(len(atoms)), rows.Z
    terms = with_own_priors(assignment, settings.bind(atoms))
    policy = settings.policy.start
    own = family.initial_psi(Z)
    if family.has_dispersion:
        own[0] = np.log(policy.share_of_variance)
    rho = np.concatenate([*(term.penalty.initial_rho() for term in terms), own])
    size = sum(atom.basis_size for atom in atoms) + assignment.has_intercept
    zeta = assignment.start(codes.support, codes.amplitudes)
    theta = Theta(np.concatenate([zeta, codes.coordinates], axis=1), np.zeros((size, Z.shape[1])))
    model = SAEManifoldModel(
        Z, atoms, terms, codes.support, theta, rho, assignment=assignment, unit=rows.unit,
        family=family, offset=settings.offset, noise=rows.noise, unit_weights=rows.weights,
        spread=rows.spread,
        integration=_integration(assignment, settings),
    )
    levels = {
        "logits": policy.log_sparsity,
        "amplitudes": policy.log_amplitudes if assignment.is_log_normal else policy.log_precision}
    for term in model.terms:
        if term.target in levels:
            rho[term.where] = term.penalty.rho_at(levels[term.target])
    rho = model.outer.filled(rho, {} if known is None else known)
    theta = solve_beta(model, theta, rho)
    rho[model.outer.psi] = start_psi(model, theta)
    if (phi := model.outer.dispersion) is not None:
        rho[phi] -= np.log(_left_to_noise(model, policy.least_left))
    # an atom that is a point has no coordinate to carry
    speeds = squared_speeds(model, theta.beta, np.ones(Z.shape[1]), settings.policy.encode)
    return model.with_state(theta, rho, codes.support & (speeds > 0.0))


def model_in_own_noise(
    rows: MetricRows, atoms: Sequence[Manifold], settings: Settings, codes: Candidate,
    known: Mapping[OuterKey, float] | None = None, second: Array | None = None,
) -> SAEManifoldModel:
    """`model_from_codes`, in the metric of the noise that the codes leave.

    Unless its second moment (p, p) in the metric of the rows is known.
    """
    model = model_from_codes(rows, atoms, settings, codes, known)
    if settings.noise == "isotropic":
        return model
    noise = (start_noise(settings.noise, model, model.initial_theta()) if second is None
             else noise_of_moment(settings.noise, model, second))
    if noise.kind == rows.noise.kind == "isotropic":
        return model
    return model_from_codes(rows.whitened(noise), atoms, settings, codes, known)


def _left_to_noise(model: SAEManifoldModel, least: float) -> float:
    """Share of the noise that rows placed on their atoms leave in the residuals.

    Each takes the noise along its atoms into its codes. Started below what it is, the noise holds
    the rows to codes that are all noise, and decoders bend after them.
    """
    taken = model.active @ [atom.intrinsic_dim for atom in model.atoms]
    return max(1.0 - float(taken.mean()) / model.shape[1], least)


def decided(model: SAEManifoldModel, settings: Settings) -> SAEManifoldModel:
    """The model with its integration decided anew, at its present state, for the next fit."""
    return model.with_integration(_integration(model.assignment, settings)).decided()


def _integration(assignment: Assignment, settings: Settings) -> Integration:
    """That of the settings; under hard gates it waits for the supports (`integrate_rows`)."""
    return "laplace" if assignment.chooses_support else settings.integration


def reassign(
    model: SAEManifoldModel, theta: Theta, rho: Array, policy: EncodePolicy
) -> tuple[SAEManifoldModel, int]:
    """The model with every row at its best local minimum, and how many rows moved."""
    found, active, moved = encode(model, theta, rho, policy, search_from_state=True)
    active[~moved] = active_set(model, theta, rho, policy)[~moved]
    if not moved.any():
        found = theta  # the very same, of which the model may know the point
    return model.with_state(found, rho, active), int(moved.sum())
