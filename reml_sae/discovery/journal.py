"""`Journal`: the REML fits that a search has made, on disk, from which it goes on after a stop.

A search is the same at every run: what it fits hangs on the rows, the parameters, the seed and what
fits before have found. So a search that is begun anew and reads the results of its first fits
instead of making them is where it was, to the bit.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
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
    DataWarning,
    InnerConvergenceError,
    InputError,
    NotPositiveDefiniteError,
)
from reml_sae.io import read_artifact, write_artifact
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")

OF = "search.safetensors"
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

    @classmethod
    def opened(cls, folder: Path, of: dict[str, str]) -> Journal:
        """That of a search which is what ``of`` says, begun or to be begun.

        Raises
        ------
        InputError
            Where the folder holds the fits of another search, or something else.
        """
        if not folder.exists():
            folder.mkdir(parents=True)
        elif not folder.is_dir() or (any(folder.iterdir()) and not (folder / OF).is_file()):
            raise InputError(f"checkpoint={str(folder)!r} holds something else; name a folder "
                             "that is empty or is not there yet")
        if (folder / OF).is_file():
            kept = read_artifact(folder / OF)[1]["of"]
            other = [name for name in {**kept, **of} if kept.get(name) != of.get(name)]
            if other:
                raise InputError(
                    f"checkpoint={str(folder)!r} is of another search: it differs in "
                    f"{', '.join(sorted(other))}; name another folder, or remove this one")
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
        if path.is_file() and (found := _read(path, key, model, options)) is not None:
            return found
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
    for path in [*folder.glob("[0-9]*.safetensors"), folder / OF]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _key(model: SAEManifoldModel, options: dict[str, Any]) -> str:
    """What a fit is of: its model at its start, and its options."""
    theta, others = model.initial_theta(), ("max_time", "callbacks", "trace")
    digest = hashlib.sha256(repr((
        [atom.label for atom in model.atoms], model.noise.kind, model.outer.names,
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


def _read(
    path: Path, key: str, model: SAEManifoldModel, options: dict[str, Any]
) -> FitResult | None:
    """What was found; None where it was of something else.

    Raises
    ------
    InnerConvergenceError, NotPositiveDefiniteError
        Where the fit did.
    """
    tensors, kept = read_artifact(path)
    if kept["key"] != key:
        logger.info("%s is of another fit, which is made anew", path)
        return None
    if "raised" in kept:
        name, message = kept["raised"]
        raise FAILURES[name](message)
    theta, rho = Theta(tensors["xi"], tensors["beta"]), tensors["rho"]
    model = model.settled()
    status, n_iter, decrement, damping = kept["inner"]
    point: ModelPoint = model.at(theta, rho)
    inner = InnerSolution(theta, point, InnerStatus[status], n_iter, decrement, damping)
    value = criterion_at(model, inner, curvature=options.get("curvature", "majorizer"),
                         gradient=bool(np.isfinite(tensors["gradient"]).all()))
    trace = options.get("trace")
    trace = REMLTrace() if trace is None else trace
    for row in kept["trace"]:
        trace.append(TraceRow(**row))
    logger.info("read from the checkpoint: V = %.6f", kept["criterion"])
    return FitResult(
        rho=rho, theta=theta, criterion=kept["criterion"], gradient=tensors["gradient"],
        trace=trace, status=OuterStatus[kept["status"]], edf=kept["edf"],
        limits=tuple((name, kind) for name, kind in kept["limits"]), value=value,
        n_iter=kept["n_iter"], detail=kept["detail"])
