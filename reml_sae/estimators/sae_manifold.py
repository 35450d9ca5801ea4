"""`SAEManifold`: the scikit-learn face of the engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from threadpoolctl import threadpool_limits

from reml_sae.diagnostics import diagnose, summary_text
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError, NotFittedError
from reml_sae.estimators import _persistence
from reml_sae.estimators._encode import encode, row_evidence
from reml_sae.estimators._fitting import Settings, fit_structure
from reml_sae.estimators._progress import progress_callback
from reml_sae.estimators._results import Atom, Codes, reconstruct
from reml_sae.estimators._validation import (
    ASSIGNMENTS,
    CURVATURES,
    FAMILIES,
    check_choice,
    check_integer,
    check_positive,
    read_penalties,
    resolve_atoms,
    resolve_terms,
)
from reml_sae.io import read_matrix
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel, Theta, check_rows
from reml_sae.outer import FitResult, TraceRow
from reml_sae.penalties import Penalty

Array = NDArray[np.float64]


class SAEManifold(TransformerMixin, BaseEstimator):
    """Sparse-autoencoder manifold fitted by REML.

    Explains every row of Z by a sparse mixture of curved atoms,
    ``z_i ~ sum_k a_ik Phi_k(t_ik) B_k``, and chooses all penalty strengths and the noise variance
    by the Laplace evidence.

    Parameters
    ----------
    n_atoms : int, default=4
        Number of atoms K.
    topology : str, Manifold or list of K of them, default="circle"
        Shape of the atoms: "circle", "linear", "plane", "euclidean" or an object such as
        ``Circle(n_harmonics=4)``.
    assignment : {"softmax"}, default="softmax"
    family : {"gaussian"}, default="gaussian"
    penalties : list of Penalty or dict, optional
        Replaces the default penalties, the assignment entropy and each atom's roughness.
    curvature : {"majorizer", "exact"}, default="majorizer"
        Operator of the log-determinant in the criterion.
    max_outer : int, default=50
        Budget of outer quasi-Newton iterations.
    tol : float, default=1e-6
        The gradient of the criterion V must fall below ``tol * (1 + abs(V))``.
    n_init : int, default=4
        Number of starts, ranked by V.
    random_state : int or None, default=0
        Seed of the starts.
    verbose : int, default=0
        1 shows progress on a terminal; without a terminal, one log line an iteration goes through
        `logging` under the name "reml_sae" whatever ``verbose`` is.
    callbacks : sequence of callables, default=()
        Called with every `TraceRow`, those of starts that lose included.
    temperature : float, default=1.0
        Softmax temperature tau.

    Attributes
    ----------
    atoms_ : list of Atom
    codes_ : Codes
        Codes of the training rows.
    rho_ : (n_rho,) array
        Log strengths and log dispersion, in units of the data's root mean square ``scale_``.
    rho_names_ : tuple of str
    strengths_ : dict
        Strength of every learnable penalty, in the same units.
    dispersion_ : float
        Noise variance in the squared units of Z.
    criterion_ : float
        V in nats, in the units of Z: Z -> c Z adds N p log c.
    edf_ : float
        Effective degrees of freedom of the fit.
    converged_ : bool
    message_ : str
    n_iter_ : int
    trace_ : REMLTrace
    diagnostics_ : Diagnostics
    mean_ : (p,) array
    scale_ : float
    n_features_in_ : int
    """

    def __init__(
        self,
        n_atoms: int = 4,
        topology: Any = "circle",
        assignment: str = "softmax",
        family: str = "gaussian",
        penalties: Sequence[Any] | None = None,
        curvature: str = "majorizer",
        max_outer: int = 50,
        tol: float = 1e-6,
        n_init: int = 4,
        random_state: int | None = 0,
        verbose: int = 0,
        callbacks: Sequence[Callable[[TraceRow], object]] = (),
        temperature: float = 1.0,
    ):
        self.n_atoms = n_atoms
        self.topology = topology
        self.assignment = assignment
        self.family = family
        self.penalties = penalties
        self.curvature = curvature
        self.max_outer = max_outer
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.temperature = temperature

    # --- fitting -----------------------------------------------------------------------------

    def fit(self, Z: Any, y: object = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        Z : (N, p) array, memmap, tensor, or path to .npy or .safetensors
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        InputError
            Where the data or a parameter cannot be used.
        """
        atoms, penalties = self._resolve()
        data = read_matrix(Z)
        n, p = data.shape
        if n < len(atoms) + 1:
            raise InputError(
                f"Z has n_samples = {n} rows; n_atoms={len(atoms)} needs at least "
                f"{len(atoms) + 1}"
            )
        terms = resolve_terms(penalties, atoms, (n, p))
        self.n_features_in_ = p
        self.mean_ = data.mean(axis=0)
        centred = data - self.mean_
        self.scale_ = _unit(centred, self.mean_)
        settings = Settings(
            terms=terms, temperature=float(self.temperature),
            curvature=self.curvature,  # type: ignore[arg-type]
            max_outer=int(self.max_outer), tol=float(self.tol), n_init=int(self.n_init),
            callbacks=tuple(self.callbacks),
        )
        rng = np.random.default_rng(self.random_state)
        with progress_callback(self.verbose, int(self.max_outer)) as show:
            if show is not None:
                settings = Settings(**{**settings.__dict__,
                                       "callbacks": (*settings.callbacks, show)})
            # the matrices are small and two BLAS pools spin against each other; one thread is
            # also what makes the bits the same everywhere
            with threadpool_limits(1):
                fitted = fit_structure(centred / self.scale_, self.scale_, atoms, settings, rng)
        self._store(fitted.model, fitted.result)
        if not self.converged_:
            warnings.warn(
                f"the fit did not converge: {self.message_}. The best state was kept; see trace_ "
                "and diagnostics_, raise max_outer or n_init, or change the atoms",
                ConvergenceWarning, stacklevel=2,
            )
        return self

    def _resolve(self) -> tuple[list[Manifold], list[Penalty] | None]:
        k = check_integer("n_atoms", self.n_atoms, 1)
        check_choice("assignment", self.assignment, ASSIGNMENTS)
        check_choice("family", self.family, FAMILIES)
        check_choice("curvature", self.curvature, CURVATURES)
        check_integer("max_outer", self.max_outer, 1)
        check_integer("n_init", self.n_init, 1)
        check_integer("verbose", self.verbose, 0)
        check_positive("tol", self.tol)
        check_positive("temperature", self.temperature)
        atoms = resolve_atoms(self.topology, k)
        return atoms, read_penalties(self.penalties)

    def _store(self, model: SAEManifoldModel, result: FitResult) -> None:
        self._manifolds = model.atoms
        self._theta_beta = result.theta.beta
        self._terms = model.terms
        self.rho_, self.rho_names_ = result.rho, model.rho_names
        self.strengths_ = model.strengths(result.rho)
        self.dispersion_ = float(np.exp(result.rho[-1]) * self.scale_**2)
        self.criterion_, self.gradient_ = result.criterion, result.gradient
        self.edf_, self.limits_ = result.edf, result.limits
        self.converged_, self.message_ = result.converged, result.message
        self.trace_ = result.trace
        self.n_iter_ = len(result.trace)
        self.codes_ = _codes(model, result.theta, result.rho)
        self.atoms_ = _atoms(model, result, self.mean_, self.scale_)
        self.diagnostics_ = diagnose(model, result, self.codes_.assignments)

    # --- use ---------------------------------------------------------------------------------

    def build_model(self, Z: Any) -> SAEManifoldModel:
        """Arrow model at the fitted structure and state, for `reml_sae.criterion`.

        Parameters
        ----------
        Z : array-like (N, p)
            The training rows; other rows are encoded first.
        """
        data = self._standardised(Z)
        if len(data) == len(self.codes_):
            model = self._model(data)
            theta = Theta(self._xi(model, self.codes_), self._theta_beta)
            return model.with_state(theta, self.rho_, self.codes_.gates)
        model, theta = self._encoded(data)
        return model.with_state(theta, self.rho_)

    def transform(self, Z: Any) -> Codes:
        """Codes of rows under the fitted decoders.

        A penalty along a sequence takes these rows as a sequence of their own.

        Raises
        ------
        InputError
            Where Z cannot be used, or a penalty holds values for another number of rows.
        """
        model, theta = self._encoded(self._standardised(Z))
        return _codes(model, theta, self.rho_)

    def fit_transform(self, Z: Any, y: object = None) -> Codes:
        """Fit and return the codes of the training rows."""
        return self.fit(Z).codes_

    def reconstruct(self, codes: Codes) -> Array:
        """Predictor (N, p) of codes, in the units of the data."""
        self._check_fitted()
        return reconstruct(codes, self._manifolds, [atom.coefficients for atom in self.atoms_])

    def predict(self, Z: Any) -> Array:
        """Reconstruction of rows, (N, p)."""
        return self.reconstruct(self.transform(Z))

    def score(self, Z: Any, y: object = None) -> float:
        """Fraction of the variance of Z that the reconstruction explains."""
        data = self._data(Z)
        total = float(((data - data.mean(axis=0)) ** 2).sum())
        residual = float(((data - self.predict(data)) ** 2).sum())
        if total == 0.0:
            raise InputError("Z is constant, so there is no variance to explain; score more rows")
        return 1.0 - residual / total

    def summary(self) -> str:
        """Text table of the fit, in the manner of mgcv's summary."""
        self._check_fitted()
        return summary_text(self)

    # --- persistence -------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one .safetensors file, atomically."""
        self._check_fitted()
        _persistence.save(self, path)

    # --- helpers -----------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "atoms_"):
            raise NotFittedError("this SAEManifold is not fitted yet; call fit(Z) first")

    def _data(self, Z: Any) -> Array:
        self._check_fitted()
        data = read_matrix(Z)
        if data.shape[1] != self.n_features_in_:
            raise InputError(
                f"Z has {data.shape[1]} features, but SAEManifold is expecting "
                f"{self.n_features_in_} features as input, as it was fitted with"
            )
        return data

    def _standardised(self, Z: Any) -> Array:
        return (self._data(Z) - self.mean_) / self.scale_

    def _model(self, data: Array) -> SAEManifoldModel:
        k = len(self._manifolds)
        active = np.ones((len(data), k), bool)
        width = k - 1 + sum(atom.latent_dim for atom in self._manifolds)
        theta = Theta(np.zeros((len(data), width)), self._theta_beta)
        return SAEManifoldModel(
            data, self._manifolds, self._terms, active, theta, self.rho_,
            temperature=float(self.temperature), unit=self.scale_,
        )

    def _encoded(self, data: Array) -> tuple[SAEManifoldModel, Theta]:
        for term in self._terms:
            check_rows(term, len(data))
        model = self._model(data)
        theta, active, _ = encode(model, model.initial_theta(), self.rho_,
                                  search_from_state=False)
        return model.with_state(theta, self.rho_, active), theta

    def _xi(self, model: SAEManifoldModel, codes: Codes) -> Array:
        logits = model.chart.temperature * np.log(np.maximum(codes.assignments, 1e-300))
        return np.concatenate([model.chart.coordinates(logits), *codes.coordinates], axis=1)


def _unit(centred: Array, mean: Array) -> float:
    scale = float(np.sqrt(np.mean(centred**2)))
    floor = 1e-12 * float(np.abs(mean).max(initial=0.0))
    if scale > floor and scale > 0.0:
        return scale
    warnings.warn(
        "Z is constant: there is no variance for the atoms to explain, and the fit is its mean",
        DataWarning, stacklevel=3,
    )
    return max(floor, 1.0)


def _codes(model: SAEManifoldModel, theta: Theta, rho: Array) -> Codes:
    logits = model.chart.logits(theta.xi[:, : model.chart.dim])
    return Codes(
        assignments=np.exp(model.chart.log_assignments(logits)),
        coordinates=[theta.xi[:, model.coordinate_columns(k)].copy()
                     for k in range(len(model.atoms))],
        gates=model.active.copy(),
        objective=model.row_objective(theta, rho),
    )


def _atoms(
    model: SAEManifoldModel, result: FitResult, mean: Array, scale: float
) -> list[Atom]:
    point = model.at(result.theta, result.rho)
    factor = point.factorize()
    border_trace = factor.selected_inverse().border_trace
    share = point.mixture.a.mean(axis=0)
    out = []
    for k, atom in enumerate(model.atoms):
        where = model.layout.basis_slices[k]
        coefficients = scale * result.theta.beta[where]
        coefficients[0] += mean
        penalised = point.decoder_penalty_trace(k, factor, border_trace)
        out.append(Atom(
            topology=atom, coefficients=coefficients,
            edf=atom.basis_size * model.shape[1] - penalised,
            evidence=_evidence(model, result, k), share=float(share[k]),
            covariance=scale**2 * factor.coefficient_covariance(where),
        ))
    return out


def _evidence(model: SAEManifoldModel, result: FitResult, k: int) -> float:
    """Rise of the row evidence when atom k's curve is replaced by its centre."""
    theta = result.theta
    beta = theta.beta.copy()
    where = model.layout.basis_slices[k]
    beta[where.start + 1 : where.stop] = 0.0
    gates = model.active.copy()
    gates[:, k] = False
    without = model.with_state(Theta(theta.xi, beta), result.rho, gates)
    reduced = without.refine_rows(without.initial_theta(), result.rho, 20)
    full = row_evidence(model, theta, result.rho).sum()
    return float(row_evidence(without, reduced, result.rho).sum() - full)
