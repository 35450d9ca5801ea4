"""Names of the columns of a data frame, as scikit-learn keeps them."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from reml_sae.errors import InputError


def read_feature_names(Z: Any) -> tuple[str, ...] | None:
    """Names of the columns of a data frame; None of other data.

    Raises
    ------
    TypeError
        Where only some of them are strings.
    """
    probe = BaseEstimator()
    validate_data(probe, Z, skip_check_array=True, ensure_2d=False)
    return tuple(probe.feature_names_in_) if hasattr(probe, "feature_names_in_") else None


def compare_names(estimator: BaseEstimator, Z: Any) -> None:
    """Refuse a data frame whose columns are others, or in another order, than those of the fit."""
    try:
        validate_data(estimator, Z, reset=False, skip_check_array=True, ensure_2d=False)
    except ValueError as error:
        raise InputError(f"Z: {error}") from None
