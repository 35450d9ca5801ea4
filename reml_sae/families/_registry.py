"""Names of families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reml_sae.families._base import Family
from reml_sae.families.binomial import Binomial
from reml_sae.families.gamma import Gamma
from reml_sae.families.gaussian import Gaussian
from reml_sae.families.negative_binomial import NegativeBinomial
from reml_sae.families.poisson import Poisson
from reml_sae.families.student_t import StudentT
from reml_sae.families.tweedie import Tweedie
from reml_sae.registry import Registry

FAMILIES: Registry[type[Family]] = Registry("family", {
    cls.name: cls
    for cls in (Binomial, Gamma, Gaussian, NegativeBinomial, Poisson, StudentT, Tweedie)
})


def registered_families() -> tuple[str, ...]:
    """Names that `get_family` knows."""
    return FAMILIES.names()


def get_family(family: str | Mapping[str, Any] | Family) -> Family:
    """Family from a name, a configuration such as ``{"family": "student_t", "df": 4}``, or itself.

    Raises
    ------
    RegistryError
        Where the name is unknown; names the near ones.
    """
    if isinstance(family, Family):
        return family
    made: Family = FAMILIES.make(family, "family")
    return made
