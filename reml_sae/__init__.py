"""Arrow-Schur REML: fits SAE-manifold models end to end."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reml_sae._version import __version__

__all__ = [
    "Atom",
    "Codes",
    "CriterionValue",
    "FitResult",
    "REMLTrace",
    "SAEManifold",
    "__version__",
    "criterion",
    "datasets",
    "diagnostics",
    "errors",
    "families",
    "fit_reml",
    "grid_criterion",
    "linalg",
    "load",
    "manifolds",
    "models",
    "penalties",
    "profile_criterion",
]

# What is named here is imported when it is first used (PEP 562), so that `reml-sae --help` does not
# wait for scipy and scikit-learn. The two branches say the same, to type checkers and to Python.
if TYPE_CHECKING:
    from reml_sae import (
        datasets,
        diagnostics,
        errors,
        families,
        linalg,
        manifolds,
        models,
        penalties,
    )
    from reml_sae.engine import (
        CriterionValue,
        FitResult,
        REMLTrace,
        criterion,
        fit_reml,
        grid_criterion,
        profile_criterion,
    )
    from reml_sae.estimators import Atom, Codes, SAEManifold, load
else:
    _MODULES = ("assignments", "datasets", "diagnostics", "discovery", "engine", "errors",
                "estimators", "families", "io", "linalg", "manifolds", "models", "penalties",
                "relaxations")
    _HOMES = {
        "Atom": "estimators",
        "Codes": "estimators",
        "CriterionValue": "engine",
        "FitResult": "engine",
        "REMLTrace": "engine",
        "SAEManifold": "estimators",
        "criterion": "engine",
        "fit_reml": "engine",
        "grid_criterion": "engine",
        "load": "estimators",
        "profile_criterion": "engine",
    }

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
