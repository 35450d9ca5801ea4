"""Names of families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reml_sae.errors import InputError
from reml_sae.families._base import Family
from reml_sae.families.binomial import Binomial
from reml_sae.families.gamma import Gamma
from reml_sae.families.gaussian import Gaussian
from reml_sae.families.negative_binomial import NegativeBinomial
from reml_sae.families.poisson import Poisson
from reml_sae.families.student_t import StudentT
from reml_sae.families.student_t_rows import StudentTRows
from reml_sae.families.tweedie import Tweedie
from reml_sae.registry import Registry

FAMILIES: Registry[type[Family]] = Registry("family", {
    cls.name: cls
    for cls in (Binomial, Gamma, Gaussian, NegativeBinomial, Poisson, StudentT, Tweedie)
})
ROW_NOISES: Registry[type[Family]] = Registry(
    "row_noise", {"gaussian": Gaussian, "student_t": StudentTRows})


def registered_families() -> tuple[str, ...]:
    """Names that `get_family` knows."""
    return FAMILIES.names()


def get_family(family: str | Mapping[str, Any] | Family) -> Family:
    """Family from a name, a configuration such as ``{"family": "student_t", "df": 4}``, or itself.

    Raises
    ------
    RegistryError
        Where the name is unknown; names the near ones.
    InputError
        Where it is noise of whole rows.
    """
    if isinstance(family, StudentTRows):
        raise InputError("family: StudentTRows is noise of whole rows, row_noise=StudentTRows(..)")
    if isinstance(family, Family):
        return family
    made: Family = FAMILIES.make(family, "family")
    return made


def with_row_noise(family: Family, row_noise: str | Mapping[str, Any] | Family) -> Family:
    """The likelihood of entries of a family in rows of a kind of noise.

    Parameters
    ----------
    family : Family
    row_noise : str, mapping or Family
        "gaussian", "student_t", ``{"row_noise": "student_t", "df": 4}``, or an object of these.

    Raises
    ------
    RegistryError
        Where the name is unknown.
    InputError
        Where the rows are not Gaussian, and the family is not.
    """
    known = tuple(ROW_NOISES.items.values())
    made: Family = (row_noise if isinstance(row_noise, known)
                    else ROW_NOISES.make(row_noise, "row_noise"))
    if isinstance(made, Gaussian):
        return family
    if not isinstance(family, Gaussian):
        raise InputError(f"row_noise={made.name!r} is for the Gaussian family; entries of the "
                         f"{family.name} family have a law of their own, use row_noise='gaussian'")
    return made
