"""Names of families."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from reml_sae.errors import RegistryError
from reml_sae.families._base import Family
from reml_sae.families.binomial import Binomial
from reml_sae.families.gamma import Gamma
from reml_sae.families.gaussian import Gaussian
from reml_sae.families.negative_binomial import NegativeBinomial
from reml_sae.families.poisson import Poisson
from reml_sae.families.student_t import StudentT
from reml_sae.families.tweedie import Tweedie

_CLASSES: dict[str, type[Family]] = {
    cls.name: cls
    for cls in (Binomial, Gamma, Gaussian, NegativeBinomial, Poisson, StudentT, Tweedie)
}


def registered_families() -> tuple[str, ...]:
    """Names that `get_family` knows."""
    return tuple(sorted(_CLASSES))


def get_family(family: str | Mapping[str, Any] | Family) -> Family:
    """Family from a name, a configuration such as ``{"family": "student_t", "df": 4}``, or itself.

    Raises
    ------
    RegistryError
        Where the name is unknown; names the near ones.
    """
    if isinstance(family, Family):
        return family
    config = dict(family) if isinstance(family, Mapping) else {"family": family}
    name = config.pop("family", None)
    if not isinstance(name, str) or name not in _CLASSES:
        near = difflib.get_close_matches(str(name), _CLASSES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise RegistryError(
            f"unknown family {name!r}; {hint}known: {', '.join(registered_families())}, "
            "or a Family object"
        )
    try:
        return _CLASSES[name](**config)
    except TypeError as error:
        raise RegistryError(f"family {name!r}: {error}") from error
