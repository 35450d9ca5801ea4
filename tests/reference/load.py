"""Reading of the reference figures and of their data.

A model is known by its name in figures.json. Everything that a test needs to build the same model
comes from here: the response, the design matrix of the unpenalised and smooth columns, the
penalties on them, and the random-effect terms.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"


@dataclass(frozen=True)
class Penalty:
    """One quadratic penalty (1/2) strength * b' S b on neighbouring coefficients b.

    Attributes
    ----------
    matrix : (m, m) array
        S.
    offset : int
        Index of the first of its coefficients, so that they are ``[offset, offset + m)``.
    rank : int
    strength : float
        The selected lambda.
    sp : float
        mgcv's smoothing parameter, ``strength * dispersion``.
    smooth : str
        Label of the smooth; penalties of one smooth act on the same coefficients.
    """

    matrix: Array
    offset: int
    rank: int
    strength: float
    sp: float
    smooth: str


@dataclass(frozen=True)
class RandomTerm:
    """Random effects of one grouping factor.

    Attributes
    ----------
    group : str
        Name of the factor.
    levels : tuple of str
        The G groups.
    groups : (n,) array of int
        Group of every observation, an index into ``levels``.
    columns : tuple of str
    Z : (n, q) array
        Covariates of the effects.
    covariance : "diagonal" or "full"
    sd : (q,) array
    correlation : (q, q) array
    ranef : (G, q) array
        Modes of the effects.
    ranef_sd : (G, q) array or None
        Their standard deviations given the fixed effects and the variances.
    """

    group: str
    levels: tuple[str, ...]
    groups: NDArray[np.intp]
    columns: tuple[str, ...]
    Z: Array
    covariance: str
    sd: Array
    correlation: Array
    ranef: Array
    ranef_sd: Array | None


@cache
def _document() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "figures.json").read_text()))


def names(package: str | None = None, **fields: object) -> tuple[str, ...]:
    """Names of the models, of one package or with given fields such as ``method="REML"``."""
    wanted = dict(fields) if package is None else {"package": package, **fields}
    return tuple(name for name, entry in _document()["models"].items()
                 if all(entry.get(key) == value for key, value in wanted.items()))


def figure(name: str) -> Mapping[str, Any]:
    """All the figures of a model, as README.md lists them."""
    models = _document()["models"]
    if name not in models:
        raise KeyError(f"no reference model is called {name!r}; there are {', '.join(models)}")
    return dict(models[name])


@cache
def _columns(name: str) -> dict[str, tuple[str, ...]]:
    with (DATA / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


@cache
def matrix(name: str) -> Array:
    """A CSV file of numbers as a read-only matrix, by its name without the ending."""
    found = np.array(list(_columns(name).values()), float).T
    found.setflags(write=False)
    return found


def column(data: str, name: str) -> Array:
    """A numeric column (n,) of a data set."""
    return np.array(_columns(data)[name], float)


def labels(data: str, name: str) -> tuple[str, ...]:
    """A column of a data set as text."""
    return _columns(data)[name]


def response(name: str) -> Array:
    """Response (n,) of a model; successes where it is binomial."""
    entry = figure(name)
    return column(entry["data"], entry["response"])


def trials(name: str) -> Array | None:
    """Numbers of trials (n,) of a binomial model; None for the others and for 0/1 responses."""
    entry = figure(name)
    return column(entry["data"], entry["trials"]) if entry.get("trials") else None


def design(name: str) -> Array:
    """Model matrix X (n, P) of the fixed effects and the smooths."""
    entry = figure(name)
    if "design" not in entry:
        raise KeyError(f"{name} is nonlinear in its parameters and has no design matrix")
    return matrix(f"{entry['design']}.X")


def penalties(name: str) -> tuple[Penalty, ...]:
    """Penalties of a model of mgcv, in the order of its smoothing parameters."""
    return tuple(
        Penalty(matrix=matrix(item["file"]), offset=item["offset"], rank=item["rank"],
                strength=item["strength"], sp=item["sp"], smooth=item["smooth"])
        for item in figure(name).get("penalties", ())
    )


def random_terms(name: str) -> tuple[RandomTerm, ...]:
    """Random-effect terms of a mixed model, one for every grouping factor.

    In a nonlinear model the columns are parameters of the curve, and Z is ones: an effect shifts
    its parameter.
    """
    entry = figure(name)
    return tuple(_random_term(entry, item) for item in entry.get("random", ()))


def _random_term(entry: Mapping[str, Any], item: Mapping[str, Any]) -> RandomTerm:
    levels = tuple(item["levels"])
    index = {level: k for k, level in enumerate(levels)}
    groups = np.array([index[label] for label in labels(entry["data"], item["group"])])
    is_parameter = "design" not in entry
    covariates = [np.ones(len(groups)) if is_parameter or name == "(Intercept)"
                  else column(entry["data"], name) for name in item["columns"]]
    effects_sd = item.get("ranef_sd")
    return RandomTerm(
        group=item["group"], levels=levels, groups=groups, columns=tuple(item["columns"]),
        Z=np.column_stack(covariates), covariance=item["covariance"],
        sd=np.array(item["sd"], float), correlation=np.array(item["correlation"], float),
        ranef=np.array(item["ranef"], float),
        ranef_sd=None if effects_sd is None else np.array(effects_sd, float),
    )
