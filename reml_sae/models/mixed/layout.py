"""From a data frame and a formula to the arrays of a mixed model, and again for new data.

One grouping factor's effects are the rows of the arrow. Those of every other factor are crossed
with them, or nested, and stand on its border: indicator columns whose penalty is the identity,
which holds independent effects only. So at most one factor may have correlated effects; that one is
in the rows, or else the one with the most levels.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError, require
from reml_sae.models.mixed.basis import PSpline
from reml_sae.models.mixed.formula import ParsedFormula, SmoothPart
from reml_sae.models.mixed.smooths import Smooth
from reml_sae.typing import Array

WHAT = "MixedModel.from_formula"


@dataclass(frozen=True, eq=False)
class RandomLayout:
    """Random effects of one term.

    Attributes
    ----------
    spec : formulaic.ModelSpec
        Of the effects.
    names : tuple of str
        Of the effects.
    group : str
        The factor, or factors with colons.
    correlated : bool
    levels : (L,) array
        Sorted.
    """

    spec: Any
    names: tuple[str, ...]
    group: str
    correlated: bool
    levels: NDArray[Any]

    def labels(self, data: Any) -> NDArray[Any]:
        """The group of every row of a frame, (n,)."""
        return group_labels(data, self.group)

    def columns(self, data: Any) -> Array:
        """Columns of the effects, (n, q)."""
        return materialised(self.spec, data)

    def border(self, data: Any) -> Array:
        """Columns on the border: those of the first effect for all levels, then of the next."""
        indicators = (self.labels(data)[:, None] == self.levels).astype(float)
        return np.hstack([column[:, None] * indicators for column in self.columns(data).T])

    def smooth_names(self) -> tuple[str, ...]:
        """Names of the penalties of its effects on the border."""
        return tuple(f"{name} | {self.group}" for name in self.names)


@dataclass(frozen=True, eq=False)
class NewData:
    """The arrays of a model for a frame.

    Attributes
    ----------
    X : (n, P) array
    Z : list of (n, q_t) arrays, or None
    groups : (n,) array, or None
    offset : (n,) array or None
        None where the offset of the fit was an array.
    """

    X: Array
    Z: list[Array] | None
    groups: NDArray[Any] | None
    offset: Array | None


@dataclass(frozen=True, eq=False)
class Layout:
    """What a formula means on the data of a fit.

    Attributes
    ----------
    formula : ParsedFormula
    fixed : formulaic.ModelSpec
    fixed_names : tuple of str
    smooths : tuple of (SmoothPart, PSpline)
    rows : tuple of RandomLayout
        Terms of the factor whose levels are the rows.
    crossed : tuple of RandomLayout
    offset : str, array or None
    """

    formula: ParsedFormula
    fixed: Any
    fixed_names: tuple[str, ...]
    smooths: tuple[tuple[SmoothPart, PSpline], ...]
    rows: tuple[RandomLayout, ...]
    crossed: tuple[RandomLayout, ...]
    offset: Any

    @classmethod
    def of(cls, formula: ParsedFormula, data: Any, offset: Any) -> Layout:
        """The layout of a formula on a frame."""
        if not hasattr(data, "columns"):
            raise InputError(f"data must be a pandas data frame, got {type(data).__name__}")
        _refuse_missing(formula, data, offset)
        fixed, names = _spec(formula.fixed, data)
        smooths = tuple((part, PSpline.of(_expression(part.variable, data), part.k, part.name))
                        for part in formula.smooths)
        terms = [RandomLayout(*_spec(part.effects, data), part.group, part.correlated,
                              np.unique(group_labels(data, part.group)))
                 for part in formula.random]
        inner = _row_factor(terms)
        return cls(formula, fixed, names, smooths,
                   tuple(t for t in terms if t.group == inner),
                   tuple(t for t in terms if t.group != inner), offset)

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        names = list(self.fixed_names)
        for part, spline in self.smooths:
            names += [f"{part.name}.{j + 1}" for j in range(spline.centring.shape[1])]
        for term in self.crossed:
            names += [f"{name} | {term.group}[{level}]" for name in term.names
                      for level in term.levels]
        return tuple(names)

    @property
    def z_names(self) -> tuple[str, ...]:
        """Names of the columns of Z.

        Raises
        ------
        InputError
            Where two terms share an effect.
        """
        names = [name for term in self.rows for name in term.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{twice[0]} is in two random terms of {self.rows[0].group}, and "
                             "their variances could not be told apart; write 0 + x in one")
        return tuple(names)

    @property
    def penalties(self) -> list[Smooth]:
        """The priors on columns of X."""
        out, begin = [], len(self.fixed_names)
        for part, spline in self.smooths:
            size = spline.centring.shape[1]
            out.append(Smooth(slice(begin, begin + size), [spline.penalty], part.name))
            begin += size
        for term in self.crossed:
            for name in term.smooth_names():
                size = len(term.levels)
                out.append(Smooth(slice(begin, begin + size), [np.eye(size)], name))
                begin += size
        return out

    def evaluate(self, data: Any, *, random: bool = True) -> NewData:
        """The arrays of a frame; without random effects their columns of X are zero."""
        offset = self.offset
        if isinstance(offset, str):
            offset = _expression(offset, data)
        elif offset is None:
            offset = np.zeros(len(data))
        else:
            offset = None
        blocks = [materialised(self.fixed, data)]
        blocks += [spline.columns(_expression(part.variable, data))
                   for part, spline in self.smooths]
        for term in self.crossed:
            blocks.append(term.border(data) if random else np.zeros(
                (len(data), len(term.names) * len(term.levels))))
        use = random and bool(self.rows)
        return NewData(np.hstack(blocks), [t.columns(data) for t in self.rows] if use else None,
                       self.rows[0].labels(data) if use else None, offset)

    def response(self, data: Any) -> tuple[Array, Array | None]:
        """Response, and the trials where it is successes and failures."""
        y = _expression(self.formula.response, data)
        if self.formula.failures is None:
            return y, None
        return y, y + _expression(self.formula.failures, data)


def materialised(spec: Any, data: Any) -> Array:
    """Columns of a Wilkinson formula on a frame, (n, k).

    Raises
    ------
    InputError
        Where a variable is missing, or a category is new.
    """
    formulaic = require("formulaic", "formula", WHAT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", formulaic.errors.DataMismatchWarning)
            return np.asarray(spec.get_model_matrix(data, context={}), float)
    except (formulaic.errors.FormulaicError, formulaic.errors.DataMismatchWarning,
            ValueError) as error:
        raise InputError(f"{spec.formula}: {error}") from error


def group_labels(data: Any, group: str) -> NDArray[Any]:
    """Labels of the levels of a factor, or of the combinations of several."""
    columns = []
    for name in group.split(":"):
        if name not in data.columns:
            raise InputError(f"the group {name!r} is no column of the data; it has "
                             f"{', '.join(map(str, data.columns))}")
        columns.append(np.asarray(data[name]))
    if len(columns) == 1:
        return columns[0].astype(str) if columns[0].dtype.kind == "O" else columns[0]
    return np.array([":".join(map(str, row)) for row in zip(*columns, strict=True)])


def column_or(value: Any, data: Any) -> Any:
    """The values of an expression in the columns of a frame; anything else as it is."""
    return _expression(value, data) if isinstance(value, str) else value


def _spec(formula: str, data: Any) -> tuple[Any, tuple[str, ...]]:
    formulaic = require("formulaic", "formula", WHAT)
    try:
        found = formulaic.model_matrix(formula, data, context={}, na_action="raise")
    except (formulaic.errors.FormulaicError, ValueError, SyntaxError) as error:
        raise InputError(f"{formula}: {error}") from error
    if hasattr(found, "_structure"):
        raise InputError(f"{formula}: the fixed part must be one formula")
    return found.model_spec, tuple(map(str, found.columns))


def _expression(text: str, data: Any) -> Array:
    """A numeric expression of the columns, (n,)."""
    if text in data.columns:
        values = np.asarray(data[text])
        if values.dtype.kind not in "fiub":
            raise InputError(f"{text} must hold real numbers, got dtype {values.dtype}")
        return values.astype(float)
    spec, names = _spec(f"0 + I({text})", data)
    if len(names) != 1:
        raise InputError(f"{text} must be one column of numbers, it makes {len(names)}")
    return materialised(spec, data)[:, 0]


def _refuse_missing(formula: ParsedFormula, data: Any, offset: Any) -> None:
    used = formula.text + (f" {offset}" if isinstance(offset, str) else "")
    for name in set(re.findall(r"[\w.]+", used)) & set(map(str, data.columns)):
        missing = np.asarray(data[name].isna())
        if missing.any():
            row = data.index[int(missing.argmax())]
            raise InputError(f"{name} is missing in row {row!r} ({int(missing.sum())} such rows); "
                             "drop them (data.dropna) or impute")


def _row_factor(terms: list[RandomLayout]) -> str:
    """The factor whose levels are the rows of the arrow."""
    full = sorted({t.group for t in terms if t.correlated and len(t.names) > 1})
    if len(full) > 1:
        raise InputError(f"the terms of {' and '.join(full)} both have correlated effects; the "
                         "engine holds those of one grouping factor, write (x || g) for the others")
    if full:
        return full[0]
    return max(terms, key=lambda term: len(term.levels)).group if terms else ""


