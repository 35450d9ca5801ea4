"""`SAEManifold`: the scikit-learn face of the engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np

from reml_sae.answers import answering
from reml_sae.assignments import Assignment, get_assignment
from reml_sae.discovery.fitting import Settings
from reml_sae.discovery.metric import MetricRows
from reml_sae.discovery.over_flat import over_flat
from reml_sae.discovery.search import search
from reml_sae.discovery.stages import Stages
from reml_sae.discovery.structure import Structure
from reml_sae.engine import Deadline, TraceRow
from reml_sae.errors import ArtifactError, ConvergenceWarning, DataWarning, InputError
from reml_sae.estimators._checkpoint import journal_of
from reml_sae.estimators._degenerate import check_degenerate
from reml_sae.estimators._feature_names import read_feature_names
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._folder import check_export, fit_file
from reml_sae.estimators._parameters import TopologyParameters
from reml_sae.estimators._persistence import read_fit
from reml_sae.estimators._progress import progress
from reml_sae.estimators._reading import Reading
from reml_sae.estimators._solver import takes_sweeps
from reml_sae.estimators._streaming import check_memory
from reml_sae.estimators._sweep_fit import SweepSettings, fit_by_sweeps
from reml_sae.estimators._units import Units
from reml_sae.estimators._validation import (
    Callbacks,
    check_integer,
    check_parameters,
    named_callbacks,
    read_penalties,
    resolve_noise,
    resolve_terms,
    resolve_topology,
)
from reml_sae.estimators._warm_start import present_fit, structure_of
from reml_sae.families import Family, get_family, with_row_noise
from reml_sae.families._answers import check_answers as family_answers
from reml_sae.io import RowSource, open_rows, read_matrix
from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.models import PenaltyTerm
from reml_sae.models.sae.model import Integration
from reml_sae.models.sae.quadrature.lattice import check_integration
from reml_sae.penalties import Penalty


class SAEManifold(TopologyParameters, Reading):
    """Sparse-autoencoder manifold fitted by REML.

    Explains every row of Z by a sparse mixture of curved atoms,
    ``z_i ~ sum_k a_ik Phi_k(t_ik) B_k``, and chooses all penalty strengths and the noise variance
    by the Laplace evidence.

    Parameters
    ----------
    n_atoms : int or "auto", default=4
        Number of atoms K; "auto" lets the evidence choose it, up to ``max_atoms``. Where no atom is
        worth its cost, that leaves one "point", the rows' mean (softmax only).
    topology : str, dict, Manifold or list of K of them, default="circle"
        Shape of the atoms: "circle", "interval", "torus", "cylinder", "sphere", "mobius",
        "projective_plane", "euclidean", "duchon", "linear", "plane", "point". V chooses the number
        of basis functions; it is that of ``Circle(n_harmonics=4)``, or a dict, where given. "auto"
        lets the evidence choose it, atom by atom; curves must beat the best flat on permuted rows.
    assignment : str or dict, default="softmax"
        How rows use atoms. "softmax": shares that sum to one, as a rule of one atom. "topk":
        exactly ``n_active`` atoms with free amplitudes. "ordered_beta_bernoulli": any atoms, at
        most ``n_active``, with free amplitudes; how often each is used is learned.
        "threshold_gate": a smooth JumpReLU; parameters as
        ``{"assignment": "threshold_gate", "threshold": 0.5, "width": 0.1}``.
    family : str, dict or Family, default="gaussian"
        Likelihood of the entries: "gaussian", "poisson", "binomial", "gamma", "negative_binomial",
        "student_t", "tweedie", with its parameters ``{"family": "binomial", "n_trials": 4}`` or an
        object. The atoms are curves on the scale of its link; the column means, on that scale, are
        an offset that is not fitted.
    penalties : list of Penalty or dict, optional
        Replaces the default penalties, the assignment entropy and each atom's size and roughness.
    curvature : {"majorizer", "exact"}, default="majorizer"
        Operator of the log-determinant in the criterion.
    max_outer : int, default=200
        Bound on the outer iterations of the fitted model, over all its rounds of REML: the rows of
        ``trace_``, those of its start included. Annealing, whose length the schedules of penalties
        set, is not counted; nor are other starts and models that the search tries, whose budgets
        are their own and no larger.
    tol : float, default=1e-6
        The gradient of the criterion V must fall below ``tol * min(1 + N p, 5000)``.
    n_init : int, default=4
        Number of starts, ranked by V; where above eight also of tries, at most, of the search among
        several atoms, which ends when two agree.
    random_state : int or None, default=0
        Seed of the starts.
    verbose : int, default=0
        1 shows progress on a terminal: the clock, the stage of the search with what its starts or
        shapes still take, V and its slope. Without a terminal, one log line a stage and an
        iteration goes through `logging` under the name "reml_sae" whatever ``verbose`` is.
    callbacks : sequence of callables, default=()
        Called with every `TraceRow`, those of starts that lose included.
    temperature : float, default=1.0
        Softmax temperature tau.
    n_active : int, default=1
        Atoms that a row uses under "topk", and at most uses under "ordered_beta_bernoulli".
    max_atoms : int, default=16
        Bound of ``n_atoms="auto"``.
    demote : bool, default=False
        Whether a curved atom that is no better than a flat one by V becomes flat, as it does where
        ``topology="auto"`` whatever is said here. Otherwise it is kept. A `DataWarning` names it
        either way.
    max_time : float or None, default=None
        Seconds after which the fit ends with its best state, not converged, over all rounds of
        the search. The Newton step or kind of start in progress is finished, and one fit is always
        begun.
    integration : {"auto", "laplace", "quadrature"}, default="auto"
        How the rows' own parameters are integrated out in V. "quadrature", exact, is for rows that
        use one atom, without penalties on its coordinates: one atom under softmax, any number
        under "topk" and "ordered_beta_bernoulli" with ``n_active=1`` (with the amplitude, Gaussian
        family; the search chooses the supports by Laplace's method, the last REML fit is exact).
        "auto" takes it wherever it exists and is affordable, of many atoms where V at the end of
        Laplace's method differs by a tenth of a nat; ``integration_`` says which it was.
    noise : {"isotropic", "diagonal", "factor", "auto"} or dict, default="auto"
        Covariance of the noise of a row. "isotropic": one variance. "diagonal": a variance for
        every column. "factor": a few directions in which all entries of a row vary together, and
        one variance beside them; their number is chosen by their evidence, or given by
        ``{"kind": "factor", "rank": 3}``. "auto": the lowest V, where it is lower by more than 3
        nats; it has no factors where rows could not tell them, fewer than two to a column and
        than ten to a factor, and no shape where less than a millionth of the variance is left.
        ``{"kind": "factor", "per_atom": True}``: the rows of an atom have
        noise of their own where V falls by it; for ``assignment="topk"`` with ``n_active=1``.
        Gaussian family; others have a variance of their own.
    row_noise : {"gaussian", "student_t"} or dict, default="gaussian"
        Scale of the noise of a row. "gaussian": that of all rows. "student_t": its own, of a
        multivariate t, whose degrees of freedom V chooses, or ``{"row_noise": "student_t",
        "df": 4}`` sets. Rows far from all curves then hardly count, see ``codes_.weights``.
        Gaussian family and ``curvature="majorizer"`` only, with any ``noise`` that atoms share.
    checkpoint : path or None, default=None
        Folder in which every REML fit of the search is kept once it is made. A fit of the same
        rows with the same arguments (other than budgets of time) that finds it there, goes on
        where the last one was stopped, killed or ran out of time, to the same result to the bit;
        one that was not stopped reads its result there. Remove the folder once the fit is saved.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the present fit, where there is one: its codes, strengths and
        noise take the place of the search for starts, and numbers and shapes of atoms that were
        open stay as they were found. Other rows are encoded first. Moves are tried as always. For
        a fit that ended early, for rows that came in addition, and for other penalties or ``tol``.
    executor : None, int, distributed.Client, str or RowMap, default=None
        Who encodes, predicts and scores chunks of rows. None: this process, rows in memory all at
        once. A number of worker processes. A client of a dask cluster, or the address of its
        scheduler. The bits are the same for all but None with rows in memory. It is not saved.
    solver : {"auto", "search", "sweeps"}, default="auto"
        "search": the engine, which needs all rows in memory and looks for shapes, noise and codes
        in many ways. "sweeps": an EM algorithm for hundreds of atoms in any number of rows, read
        from where they lie: rings of which each row uses one (``assignment="topk"``), isotropic
        noise; ``docs/large.md`` says how. "auto": sweeps where the model is one of theirs and has
        more than 32 atoms, or its rows do not fit in memory; the search elsewhere.
    device : str, default="cpu"
        Of sweeps: "cpu" by NumPy, or a device of torch such as "cuda". It is not saved.

    Attributes
    ----------
    atoms_ : list of Atom
    codes_ : Codes
        Codes of the training rows.
    rho_ : (n_rho,) array
        Log strengths and the family's own parameters (the log dispersion of a Gaussian), in units
        of ``scale_``.
    rho_names_ : tuple of str
    penalties_ : tuple of PenaltyTerm
        The penalties of the fit, each with what it acts on, those of the gates included.
    strengths_ : dict
        Strength of every learnable penalty, in the same units.
    dispersion_ : float
        Noise variance in the squared units of Z, the geometric mean over all directions where
        these differ, of a row of weight 1; for other families their dispersion, 1 without.
    df_ : float
        Degrees of freedom of the rows' t; infinite of Gaussian rows, and at that limit.
    criterion_ : float
        V in nats, in the units of Z: Z -> c Z adds N p log c.
    edf_ : float
        Effective degrees of freedom of the fit.
    converged_ : bool
    message_ : str
        Why the fit ended, and that no structure was found where none was.
    n_iter_ : int
    trace_ : REMLTrace
    diagnostics_ : Diagnostics
    assignment_ : Assignment
    integration_ : {"laplace", "quadrature"}
        How the rows' own parameters were integrated out in V.
    search_ : SearchRecord
        Numbers of atoms, topologies and changes of structure that were tried, with their V.
    mean_ : (p,) array
    offset_ : (p,) array
        What the predictor adds to the atoms: the column means, on the scale of the link.
    intercept_ : (p,) array
        What `decode` adds to the atoms' curves: 0 on the simplex, where the atoms hold it.
    scale_ : float
        Root mean square of the centred data in the metric of ``noise_``; 1 for families other than
        the Gaussian.
    noise_ : RowNoise
        The covariance of the noise of the rows of atom k is ``dispersion_ *
        exp(noise_.log_size(k)) * noise_.of_atom(k).shape``, whose last factor has determinant 1.
    n_features_in_ : int
    feature_names_in_ : (p,) array of str
        Of the columns of a data frame; absent where Z was none.
    data_digest_ : str or None
        SHA-256 of the training rows, by which other rows are told from them; None where the fit
        was saved before it was kept.
    """

    def __init__(
        self,
        n_atoms: int | Literal["auto"] = 4,
        topology: Any = "circle",
        assignment: Any = "softmax",
        family: str | Mapping[str, Any] | Family = "gaussian",
        penalties: Sequence[Any] | None = None,
        curvature: str = "majorizer",
        max_outer: int = 200,
        tol: float = 1e-6,
        n_init: int = 4,
        random_state: int | None = 0,
        verbose: int = 0,
        callbacks: Sequence[Callable[[TraceRow], object]] = (),
        temperature: float = 1.0,
        n_active: int = 1,
        max_atoms: int = 16,
        demote: bool = False,
        max_time: float | None = None,
        integration: Integration = "auto",
        noise: str | Mapping[str, Any] = "auto",
        row_noise: Any = "gaussian",
        checkpoint: str | os.PathLike[str] | None = None,
        warm_start: bool = False,
        executor: Any = None,
        solver: str = "auto",
        device: str = "cpu",
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
        self.n_active = n_active
        self.max_atoms = max_atoms
        self.demote = demote
        self.max_time = max_time
        self.integration = integration
        self.noise = noise
        self.row_noise = row_noise
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.executor = executor
        self.solver = solver
        self.device = device

    # --- fitting -----------------------------------------------------------------------------

    @single_threaded
    def fit(self, Z: Any, y: object = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        Z : (N, p) array, memmap, data frame, tensor, or path
            As `reml_sae.io.open_rows` takes it; all of it is read.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        InputError
            Where the data or a parameter cannot be used.
        """
        structure, penalties = self._resolve()
        before = getattr(self, "_fitted", None) if self.warm_start else None
        if before is not None:
            structure = structure_of(before, structure)
        deadline = Deadline.within(self.max_time)
        feature_names, source = read_feature_names(Z), open_rows(Z)
        n, least = source.shape[0], structure.n_atoms or 1
        if n <= least:
            raise InputError(f"Z has n_samples = {n} rows; {least} atoms need at least {least + 1}")
        solve = (self._sweep if takes_sweeps(self, structure, self._assignment(least), source)
                 else partial(self._search, penalties, before))
        with progress(self.verbose) as (stages, shown):
            stopped = solve(structure, source, feature_names, deadline,
                            (*named_callbacks(self.callbacks), *shown), stages)
        if deadline.interrupt.is_set() and not stopped:
            warnings.warn("interrupted by the user when the fit was complete", ConvergenceWarning,
                          stacklevel=3)
        for message in self._fitted.remarks():
            warnings.warn(message, DataWarning, stacklevel=3)
        if not self.converged_:
            warnings.warn(f"the fit did not converge: {self.message_}. {self._advice(stopped)}",
                          ConvergenceWarning, stacklevel=3)
        return self

    def _sweep(
        self, structure: Structure, source: RowSource, feature_names: tuple[str, ...] | None,
        deadline: Deadline, callbacks: Callbacks, stages: Stages,
    ) -> bool:
        """Fit by sweeps; returns whether that was stopped."""
        stages.enter("sweeps")
        units = Units.of_source(source)
        checkpoint = journal_of(self, units).folder
        settings = SweepSettings(
            self.device, self.random_state, int(self.max_outer), callbacks, deadline, checkpoint,
            shapes_open=structure.topology is None)
        atoms = structure.atoms(structure.n_atoms or 1)
        with deadline.stops_on_interrupt():
            self._adopt(fit_by_sweeps(source, atoms, units, settings, feature_names))
        return deadline.passed and not self.converged_

    def _search(
        self, penalties: list[Penalty] | None, before: FittedSAE | None, structure: Structure,
        source: RowSource, feature_names: tuple[str, ...] | None, deadline: Deadline,
        callbacks: Callbacks, stages: Stages,
    ) -> bool:
        """Fit by the search with the engine; returns whether that was stopped."""
        least = structure.n_atoms or 1
        check_memory(source, structure.atoms(least), self._assignment(least))
        data = read_matrix(source)
        n, p = data.shape
        family = with_row_noise(get_family(self.family), self.row_noise)
        family.check(data)
        family = answering(family, "family", partial(family_answers, data=data))
        noise, per_atom = resolve_noise(
            self.noise, family, self._assignment(max(least, int(self.n_active))), (n, p))

        def bind(atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
            return resolve_terms(penalties, atoms, self._assignment(len(atoms)), family, (n, p))

        atoms = structure.atoms(least)
        check_integration(self.integration, atoms, self._assignment(least), bind(atoms), family)
        units = Units.of(data, family)
        # the scales of degenerate rows would take long to find
        check_degenerate(data, family, atoms, structure.n_atoms or structure.most_atoms)
        units = units.with_row_scales(data, family)
        present = (None if before is None else
                   present_fit(before, data, units.digest, self._assignment(least), family))
        settings = Settings(
            family=family, offset=units.model_offset, bind=bind, assign=self._assignment,
            curvature=self.curvature,  # type: ignore[arg-type]
            integration=self.integration, noise=noise, per_atom=per_atom,
            max_outer=int(self.max_outer), tol=float(self.tol), n_init=int(self.n_init),
            callbacks=callbacks, deadline=deadline, stages=stages,
            journal=journal_of(self, units, "" if present is None else present.digest),
        )
        rows = MetricRows.isotropic(units.standardised(data), units.scale, family)
        rng = np.random.default_rng(self.random_state)
        with deadline.stops_on_interrupt():
            fitted, record = search(rows, structure, settings, rng, present)
            rises = over_flat(fitted, settings, rng)
            self._adopt(FittedSAE.of(fitted, record, units, feature_names, rises))
        return fitted.result.interrupted

    def _resolve(self) -> tuple[Structure, list[Penalty] | None]:
        k = None if self.n_atoms == "auto" else check_integer("n_atoms", self.n_atoms, 1)
        most = check_integer("max_atoms", self.max_atoms, 1)
        check_parameters(self)
        topology, sizes = resolve_topology(self.topology, k)
        return (Structure(topology, k, most, bool(self.demote), sizes),
                read_penalties(self.penalties))

    def _assignment(self, n_atoms: int) -> Assignment:
        n_active = int(self.n_active)
        if self.n_atoms == "auto":
            n_active = min(n_active, n_atoms)
        return get_assignment(self.assignment, n_atoms, n_active=n_active,
                              temperature=float(self.temperature))

    def _advice(self, stopped: bool) -> str:
        """What to do about a fit that did not converge."""
        if not stopped:
            return ("The best state was kept; see trace_ and diagnostics_, raise max_outer or "
                    "n_init, or change the atoms")
        return ("Give it more time" if self.checkpoint is None else "Fit again to go on from its "
                "checkpoint (--resume on the command line), with more time if it was short")

    def _adopt(self, fitted: FittedSAE) -> None:
        """Take a fit, all of it at once: one that failed before leaves the last as it was."""
        shown = fitted.attributes()
        if "feature_names_in_" not in shown:  # which is absent of rows without names
            self.__dict__.pop("feature_names_in_", None)
        self.__dict__.update(shown, _fitted=fitted)


def load(path: str | os.PathLike[str]) -> SAEManifold:
    """Read a fitted `SAEManifold` that its ``save``, or ``save_folder``, wrote.

    Raises
    ------
    ArtifactError
        Where the file was changed since, is truncated, or holds something else.
    InputError
        Where there is no such file, or the files of a folder are not of one fit.
    """
    fitted, parameters = read_fit(fit_file(path))
    if os.path.isdir(path):
        check_export(path, fitted)
    try:
        model = SAEManifold(**parameters)
        model._resolve()
    except (TypeError, InputError) as error:
        raise ArtifactError(f"path={os.fspath(path)!r} holds parameters that are none: {error}"
                            ) from error
    model._adopt(fitted)
    return model
