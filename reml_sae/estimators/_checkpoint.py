"""Where a `SAEManifold` keeps what it has fitted, while it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reml_sae import __version__
from reml_sae.discovery.journal import Journal, fingerprint
from reml_sae.estimators._units import Units
from reml_sae.io import check_folder

NOT_OF_THE_FIT = ("verbose", "callbacks", "max_time", "checkpoint", "executor")
"""Parameters on which the result of a fit that comes to its end does not hang."""


def journal_of(model: Any, units: Units, start: str = "") -> Journal:
    """The folder of fits of these rows with the arguments of a `SAEManifold`.

    ``start`` is the digest of a present fit that they go on from.

    Raises
    ------
    InputError
        Where the folder is of another fit, or cannot be used.
    """
    if model.checkpoint is None:
        return Journal()
    check_folder(model.checkpoint, "checkpoint")
    arguments = {name: fingerprint(value) for name, value in model.get_params(deep=False).items()
                 if name not in NOT_OF_THE_FIT}
    return Journal.opened(Path(model.checkpoint), {
        "the rows": str(units.digest), "the version": __version__, "the start": start,
        **arguments})
