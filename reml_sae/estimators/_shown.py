"""Which rows of a fit its report shows: all of them, or some where they use many atoms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from reml_sae.errors import InputError
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._sparse_codes import SparseCodes
from reml_sae.estimators._streaming import open_rows_of, spread_rows
from reml_sae.estimators._units import check_magnitude
from reml_sae.io import MatrixDigest, RowSource, check_same_rows, read_chunks
from reml_sae.rows import spread_index
from reml_sae.typing import Array

MOST_SHOWN = 20_000_000
"""Rows times atoms that a page is made of."""

Shown = tuple[Any, Array | None, Sequence[str] | None, str]


def shown_rows(
    model: Any, fitted: FittedSAE, Z: Any, labels: Sequence[str] | None, name: str
) -> Shown:
    """The arguments of `write_report`: the estimator, rows, their texts, and what they are called.

    Parameters
    ----------
    model : fitted SAEManifold
    fitted : FittedSAE
    Z : whatever `open_rows` opens, or None
    labels : sequence of N str, or None
    name : str
        What the data are called.

    Raises
    ------
    InputError
        Where Z are not the rows of the fit, or there is not one text a row.
    """
    source = None if Z is None else open_rows_of(fitted, Z)
    if source is not None:
        check_same_rows({"the fit": fitted.units.digest, source.name: source_digest(source)})
    n, most = len(fitted.codes), len(fitted.codes)
    if isinstance(fitted.codes, SparseCodes):
        most = min(n, max(1, MOST_SHOWN // len(fitted.atoms)))
        if labels is not None and len(labels) != n:
            raise InputError(f"labels has {len(labels)} texts, the fit has {n} rows; give one text "
                             "a row, in the order of the rows")
        index = spread_index(n, most)
        whole, model = model, copy.copy(model)
        model.codes_, model.summary = fitted.codes[index].dense(), whole.summary
        labels = None if labels is None else [labels[i] for i in index]
        if most < n:
            name = f"{name + ', ' if name else ''}of whose {n} rows this page shows and counts"
    data = None if source is None else spread_rows(source, most)
    if data is not None:
        check_magnitude(data, fitted.units.scale)
    return model, data, labels, name


def source_digest(source: RowSource) -> str:
    """`matrix_digest` of the rows of a source, a chunk at a time."""
    digest = MatrixDigest(source.shape)
    for rows in read_chunks(source):
        digest.update(rows)
    return digest.hexdigest()
