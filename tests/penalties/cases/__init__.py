"""Cases of every registered kind, one module for each family of penalties."""

from importlib import import_module

from tests.penalties.cases._case import Case, Small

FAMILIES = ("seed", "elementwise", "row_priors", "gram", "coupled", "hyper")
CASES: list[Case] = [case for family in FAMILIES
                     for case in import_module(f"tests.penalties.cases.{family}").CASES]

__all__ = ["CASES", "Case", "Small"]
