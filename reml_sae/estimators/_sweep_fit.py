"""From the rows of a source to a fit by sweeps: the sweeps, and one pass that harvests them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from reml_sae.assignments import TopK
from reml_sae.discovery.encode import Remembered
from reml_sae.discovery.record import SearchRecord
from reml_sae.engine import Deadline, REMLTrace, TraceRow
from reml_sae.estimators._harvest import a_row
from reml_sae.estimators._results import Atom
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.estimators._sweep_checks import SweptRows, swept_diagnostics
from reml_sae.estimators._swept import (
    SweptSAE,
    at_modes,
    codes_at,
    model_of,
    rho_of,
    structure_of,
)
from reml_sae.estimators._units import Units
from reml_sae.families import get_family
from reml_sae.io import RowSource
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.defaults import default_terms
from reml_sae.models.sae.labelled import OwnSpans
from reml_sae.models.sae.priors import without_null_priors
from reml_sae.models.sae.single.summed import RowSums, SummedPoint
from reml_sae.rows import SerialRows, ThreadRows, row_slices
from reml_sae.sweeps import (
    RowCodes,
    SpanMoments,
    SweepCheckpoint,
    SweepFit,
    SweepPolicy,
    SweepState,
    SweepSums,
    fit_sweeps,
    get_backend,
    over_flat,
    sweep,
    with_flats,
)
from reml_sae.sweeps.standard import READ_ELEMENTS, StandardRows, on_device
from reml_sae.typing import Array, Index

MOST_TURNS = 4
"""Count of times at most that flats take the place of curves."""
BLOCK_ROWS = 1 << 20
"""Rows whose codes are found together, in some hundred bytes each."""
SETTLED = "the sweeps to come would gain less than {tol:g} nats a row"
SPENT = "the budget of sweeps ran out; raise max_outer"


@dataclass(frozen=True)
class SweepSettings:
    """What a fit by sweeps is told.

    Attributes
    ----------
    device : str
        "cpu", or a device of torch.
    seed : int or None
    max_outer : int
        Sweeps over all rows at most, after every sample.
    callbacks : sequence of callables
        Called with a `TraceRow` for every sweep.
    deadline : Deadline
    checkpoint : Path or None
        Folder.
    shapes_open : bool
        Whether flats may take the place of curves.
    """

    device: str
    seed: int | None
    max_outer: int
    callbacks: Sequence[Callable[[TraceRow], object]]
    deadline: Deadline
    checkpoint: Path | None
    shapes_open: bool = False


def fit_by_sweeps(
    source: RowSource, atoms: Sequence[Manifold], units: Units, settings: SweepSettings,
    feature_names: tuple[str, ...] | None,
) -> SweptSAE:
    """Fit atoms to the rows of a source, of which each uses one.

    Raises
    ------
    InputError
        Where rows cannot be read, or atoms be found by sweeps.
    """
    on_host = settings.device == "cpu"
    device = "numpy" if on_host else settings.device
    backend, row_map = get_backend(device), ThreadRows() if on_host else SerialRows()
    standard = StandardRows(source, units.mean, units.scale, np.dtype(np.float32))
    rows = standard if on_host else on_device(standard, backend)
    trace = _Trace(len(rows) * len(units.mean) * float(np.log(units.scale)), settings.callbacks)
    policy = SweepPolicy(most_sweeps=settings.max_outer)
    seed = int(np.random.default_rng().integers(2**32)) if settings.seed is None else settings.seed

    def swept(atoms: Sequence[Manifold], turn: int, start: SweepState | None) -> SweepFit:
        checkpoint = SweepCheckpoint(
            settings.checkpoint and settings.checkpoint / f"{turn:06d}.safetensors")
        return fit_sweeps(rows, atoms, backend, seed, policy, row_map=row_map, start=start,
                          checkpoint=checkpoint, deadline=settings.deadline, watch=trace)

    fit = swept(atoms, 0, None)
    for turn in range(1, MOST_TURNS + 1):
        shaped = (_shaped(source, atoms, units, fit)
                  if settings.shapes_open and not settings.deadline.passed else None)
        other = None if shaped is None else swept(shaped[0], turn, shaped[1])
        if shaped is None or other is None or not other.trace[-1] < fit.trace[-1]:
            break
        atoms, fit = shaped[0], other
    deadline = settings.deadline.status if settings.deadline.passed else None
    message = (SETTLED.format(tol=policy.tol) if fit.settled
               else SPENT if deadline is None else deadline.value)
    last = sweep(rows, fit.state, backend, n_candidates=policy.n_encoded,
                 fineness=policy.fineness, row_map=row_map)
    return _harvested(source, atoms, units, fit, last, policy, message, trace.kept, feature_names,
                      device)


class _Trace:
    """The trace of the sweeps over all rows; callbacks are told of those over samples, too."""

    def __init__(self, constant: float, callbacks: Sequence[Callable[[TraceRow], object]]):
        self.kept, self._constant, self._callbacks = REMLTrace(), constant, callbacks
        self._begun = time.perf_counter()

    def __call__(self, stage: str, state: SweepState, value: float) -> None:
        whole = stage == "sweep"
        constant = self._constant if whole else 0.0
        row = TraceRow(
            iteration=len(self.kept), stage=stage, criterion=value + constant,
            parts={"objective": value, "units": constant}, gradient_norm=np.nan,
            rho={"log_amplitude_precision": float(np.log(state.amplitude_precision)),
                 "log_dispersion": float(np.log(state.dispersion))},
            strengths={}, weights={}, edf=np.nan, inner_iterations=0, inner_status="",
            damping=0.0, seconds=time.perf_counter() - self._begun)
        if whole:
            self.kept.append(row)
        for callback in self._callbacks:
            callback(row)


def _harvested(
    source: RowSource, atoms: Sequence[Manifold], units: Units, fit: SweepFit,
    last: tuple[SweepSums, RowCodes], policy: SweepPolicy, message: str,
    trace: REMLTrace, feature_names: tuple[str, ...] | None, device: str,
) -> SweptSAE:
    """What the user reads, and what encoding needs, of the state that sweeps ended with."""
    (K, p), (whole, codes) = (len(atoms), len(units.mean)), last
    model, beta, rho = _model_at(fit.state, atoms, units)
    found, sums, moments = _pass(source, OwnSpans.of(model, beta, rho), units, codes, policy)
    rises = over_flat(fit.state, whole, codes, moments)
    point = SummedPoint(model, beta, rho, sums)
    counts = found.codes.counts(model.assignment)
    fitted_atoms = []
    for k, atom in enumerate(atoms):
        edf, covariance = point.decoder_posterior(k)
        fitted_atoms.append(Atom(
            atom, np.ascontiguousarray(units.scale * beta[model.layout.basis_slices[k]]), edf,
            float(found.evidence[k]), a_row(float(found.evidence[k]), counts[k]),
            None if atom.is_flat else float(rises[k]),
            float(found.amplitudes[k]) / found.n_rows,
            np.ascontiguousarray(units.scale**2 * covariance)))
    edf = sums.edf + sum(atom.edf for atom in fitted_atoms)
    phi = fit.state.dispersion
    return SweptSAE(
        atoms=fitted_atoms, assignment=model.assignment, family=get_family("gaussian"),
        penalties=without_null_priors(model.terms), integration="laplace",
        units=units, intercept=units.mean, beta=beta, rho=rho, rho_names=model.outer.names,
        zeta=np.zeros((0, K)), gate_counts=(counts.astype(float), found.n_rows),
        codes=found.codes,
        remembered=Remembered(np.zeros((0, p)), np.zeros((0, model.theta.xi.shape[1])),
                              np.zeros((0, K), bool)),
        strengths=model.strengths(rho), dispersion=phi * units.scale**2,
        criterion=point.criterion, gradient=np.full(len(rho), np.nan), edf=edf, limits=(),
        converged=fit.settled, message=message, trace=trace,
        diagnostics=swept_diagnostics(found, fitted_atoms, point.criterion, phi, fit.settled,
                                      message, trace),
        search=SearchRecord(), feature_names=feature_names, sweeps=policy, device=device)


def _model_at(
    state: SweepState, atoms: Sequence[Manifold], units: Units
) -> tuple[SAEManifoldModel, Array, Array]:
    """The arrow model without rows at a state, its decoders and outer parameters."""
    K, p = len(atoms), len(units.mean)
    beta = np.concatenate([*(state.decoder(k) for k in range(K)), np.zeros((1, p))])
    structure = structure_of(atoms, default_terms(atoms, TopK(K, 1)), units.scale, p)
    rho = rho_of(structure, state)
    return model_of(structure, beta, rho), beta, rho


def _shaped(
    source: RowSource, atoms: Sequence[Manifold], units: Units, fit: SweepFit
) -> tuple[list[Manifold], SweepState] | None:
    """Atoms and state with flats in the place of curves that are not above them."""
    spans, (N, p) = OwnSpans.of(*_model_at(fit.state, atoms, units)), source.shape
    labels = fit.codes.labels

    def of_rows(part: slice) -> list[SpanMoments]:
        data = units.standardised(source.chunk(part.start, part.stop).read())
        return _moments(spans, spans.project(data, labels[part]), labels[part])

    moments = list[SpanMoments]()
    for own in ThreadRows().map(of_rows, row_slices(N, p, READ_ELEMENTS)):
        moments = _added(moments, own)
    rises = over_flat(fit.state, fit.sums, fit.codes, moments)
    return with_flats(fit.state, rises, moments, spans.frames)


def _moments(spans: OwnSpans, projected: Array, labels: Index) -> list[SpanMoments]:
    """Of projected rows, for the atoms of every kind."""
    return [SpanMoments(*each) for each in spans.moments(projected, labels)]


def _added(total: list[SpanMoments], own: list[SpanMoments]) -> list[SpanMoments]:
    return [a + b for a, b in zip(total, own, strict=True)] if total else own


def _pass(
    source: RowSource, spans: OwnSpans, units: Units, codes: RowCodes, policy: SweepPolicy
) -> tuple[SweptRows, RowSums, list[SpanMoments]]:
    """Codes of all rows, what they have of V, and their moments by kind."""
    (N, p), K = source.shape, len(spans.structure.atoms)
    phi = spans.structure.scale_floor(spans.rho)

    def project(part: slice) -> Array:
        data = units.standardised(source.chunk(part.start, part.stop).read())
        return spans.project(data, codes.labels[part])

    kept, total, moments = list[SparseCodes](), None, list[SpanMoments]()
    evidence, amplitudes, distances = np.zeros(K), np.zeros(K), []
    for block in row_slices(N, 1, BLOCK_ROWS):
        slices = [slice(block.start + part.start, block.start + part.stop)
                  for part in row_slices(block.stop - block.start, p, READ_ELEMENTS)]
        projected = np.concatenate([*ThreadRows().map(project, slices)])
        own = RowCodes(*(getattr(codes, item.name)[block] for item in fields(codes)))
        parts = at_modes(spans, projected, own, policy, ThreadRows())
        kept.append(codes_at(parts, own.labels, spans.structure.atoms))
        left = np.empty(len(own.labels))
        sums = RowSums.of_kinds([part.sums() for part in parts])
        total = sums if total is None else total + sums
        moments = _added(moments, _moments(spans, projected, own.labels))
        for part in parts:
            rows = part.kind.rows
            centre = 0.5 * part.from_centres() / phi + p * (
                0.5 * np.log(2.0 * np.pi * phi) + np.log(units.scale))
            evidence += np.bincount(own.labels[rows], centre - part.evidence(), K)
            left[rows] = part.residuals()
        amplitudes += np.bincount(own.labels, kept[-1].amplitudes, K)
        distances.append(left / phi)
    assert total is not None
    distance = np.concatenate(distances)
    found = SweptRows(SparseCodes.joined(kept), evidence, amplitudes, distance,
                      phi * float(distance.sum()) / (N * p))
    return found, total, moments
