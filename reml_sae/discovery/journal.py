"""`Journal`: the REML fits that a search has made, on disk, from which it goes on after a stop.

A search is the same at every run: what it fits hangs on the rows, the parameters, the seed and what
fits before have found. So a search that is begun anew and reads the results of its first fits
instead of making them is where it was, to the bit.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reml_sae.engine import (
    FitResult,
    InnerSolution,
    InnerStatus,
    OuterStatus,
    REMLTrace,
    Theta,
    TraceRow,
    criterion_at,
    fit_reml,
)
from reml_sae.engine.protocol import ModelPoint
from reml_sae.errors import (
    ArtifactError,
    DataWarning,
    InnerConvergenceError,
    InputError,
    NotPositiveDefiniteError,
)
from reml_sae.io import read_artifact, write_artifact
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")

OF, PART = "search.safetensors", ".part"
FEW = 100
"""Entries of a list that stand in the file as they are."""
FAILURES = {kind.__name__: kind for kind in (InnerConvergenceError, NotPositiveDefiniteError)}


class Journal:
    """Fits of one search, each in a file of its own, in their order.

    Parameters
    ----------
    folder : Path or None
        Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None):
        self._folder, self._made = folder, 0

    @property
    def folder(self) -> Path | None:
        """Where fits are kept."""
        return self._folder

    @classmethod
    def opened(cls, folder: Path, of: dict[str, str]) -> Journal:
        """That of a search which is what ``of`` says, begun or to be begun.

        Raises
        ------
        InputError
            Where the folder holds the fits of another search, or something else.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [path for path in folder.iterdir() if path.suffix != PART]
        except OSError as error:
            raise InputError(f"checkpoint={str(folder)!r} cannot be used ({error.strerror}); name "
                             "another folder") from error
        kept = read_artifact(folder / OF)[1].get("of") if (folder / OF).is_file() else None
        if others and not isinstance(kept, dict):
            raise InputError(f"checkpoint={str(folder)!r} holds something else; name a folder "
                             "that is empty or is not there yet")
        if kept:
            other = [name for name in {**kept, **of} if kept.get(name) != of.get(name)]
            if other:
                raise InputError(
                    f"checkpoint={str(folder)!r} is of another search: it differs in "
                    f"{', '.join(sorted(other))}; name another folder, or remove that checkpoint")
        else:
            write_artifact(folder / OF, {}, {"of": of})
        return cls(folder)

    def fit(self, model: SAEManifoldModel, **options: Any) -> FitResult:
        """`fit_reml`, or what it has found before."""
        if self._folder is None:
            return fit_reml(model, **options)
        path = self._folder / f"{self._made:06d}.safetensors"
        self._made += 1
        key = _key(model, options)
        if path.is_file():
            try:
                return _read(path, key, model, options)
            except (InputError, LookupError, TypeError, ValueError, AttributeError,
                    FloatingPointError) as error:
                logger.info("%s is of no use, and the fit is made anew: %s", path, error)
        before = len(options.get("trace") or ())
        try:
            result = fit_reml(model, **options)
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            self._keep(path, {}, {"key": key, "raised": [type(error).__name__, str(error)]})
            raise
        if not result.interrupted:
            self._keep(path, *_content(key, result, list(result.trace)[before:]))
        return result

    def _keep(self, path: Path, tensors: dict[str, Array], metadata: dict[str, Any]) -> None:
        try:
            write_artifact(path, tensors, metadata)
        except InputError as error:
            # a fit is worth more than what it could go on from
            self._folder = None
            warnings.warn(f"the fit goes on without its checkpoint: {error}", DataWarning,
                          stacklevel=2)


def remove_checkpoint(folder: Path) -> None:
    """Remove what a journal has kept, and its folder where nothing else is in it."""
    if not folder.is_dir():
        return
    for path in [*folder.glob("[0-9]*.safetensors"), *folder.glob(f".*{PART}"), folder / OF]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def fingerprint(value: Any) -> str:
    """Text that is the same for what means the same, and different for what differs in a bit."""
    if hasattr(value, "to_config"):
        return f"{type(value).__name__}{fingerprint(value.to_config())}"
    if isinstance(value, Mapping):
        inner = sorted(f"{name!r}: {fingerprint(item)}" for name, item in value.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        value = [fingerprint(item) for item in value]
        if len(value) > FEW:
            return hashlib.sha256(repr(value).encode()).hexdigest()
    return repr(value)


def _key(model: SAEManifoldModel, options: dict[str, Any]) -> str:
    """What a fit is of: its model at its start, and its options."""
    theta, others = model.initial_theta(), ("max_time", "callbacks", "trace")
    digest = hashlib.sha256(repr((
        [atom.label for atom in model.atoms], model.noise.kind, model.unit, model.spread,
        model.outer.names,
        [(fingerprint(term.penalty), term.target, term.atom) for term in model.terms],
        [(str(key), value) for key, value in model.held.items()],
        sorted((name, value) for name, value in options.items() if name not in others))).encode())
    for array in (theta.xi, theta.beta, model.initial_rho(), model.active):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _content(
    key: str, result: FitResult, rows: Sequence[TraceRow]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """What is kept of a fit."""
    inner = result.value.inner
    return (
        {"xi": result.theta.xi, "beta": result.theta.beta, "rho": result.rho,
         "gradient": result.gradient},
        {"key": key, "criterion": result.criterion, "edf": result.edf,
         "status": result.status.name, "limits": result.limits, "n_iter": result.n_iter,
         "detail": result.detail, "trace": [vars(row) for row in rows],
         "inner": [inner.status.name, inner.n_iter, inner.decrement, inner.damping]})


def _read(path: Path, key: str, model: SAEManifoldModel, options: dict[str, Any]) -> FitResult:
    """What was found.

    Raises
    ------
    InnerConvergenceError, NotPositiveDefiniteError
        Where the fit did.
    ArtifactError
        Where the file is of another fit; `LookupError` and the like where it is of none.
    """
    tensors, kept = read_artifact(path)
    if kept["key"] != key:
        raise ArtifactError("it is of another fit")
    if "raised" in kept:
        name, message = kept["raised"]
        raise FAILURES[name](message)
    theta, rho = Theta(tensors["xi"], tensors["beta"]), tensors["rho"]
    start = model.initial_theta()
    if ((theta.xi.shape, theta.beta.shape, rho.shape)
            != (start.xi.shape, start.beta.shape, model.initial_rho().shape)
            or not all(np.isfinite(value).all() for value in (theta.xi, theta.beta, rho))):
        raise ArtifactError("it holds no state of the model")
    model = model.settled()
    status, n_iter, decrement, damping = kept["inner"]
    with np.errstate(over="raise", divide="raise", invalid="raise"):  # no state of a fit does
        point: ModelPoint = model.at(theta, rho)
        inner = InnerSolution(theta, point, InnerStatus[status], n_iter, decrement, damping)
        value = criterion_at(model, inner, curvature=options.get("curvature", "majorizer"),
                             gradient=bool(np.isfinite(tensors["gradient"]).all()),
                             lenient=bool(options.get("rough")))
    rows = [TraceRow(**row) for row in kept["trace"]]
    trace = options.get("trace")
    trace = REMLTrace() if trace is None else trace
    found = FitResult(
        rho=rho, theta=theta, criterion=kept["criterion"], gradient=tensors["gradient"],
        trace=trace, status=OuterStatus[kept["status"]], edf=kept["edf"],
        limits=tuple((name, kind) for name, kind in kept["limits"]), value=value,
        n_iter=kept["n_iter"], detail=kept["detail"])
    for row in rows:
        trace.append(row)
    logger.info("read from the checkpoint: V = %.6f", found.criterion)
    return found
