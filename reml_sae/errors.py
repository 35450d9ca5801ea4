"""Every exception and warning class of the package."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import import_module
from types import ModuleType

import sklearn.exceptions

__all__ = [
    "ArtifactError",
    "ConvergenceWarning",
    "DataWarning",
    "ForeignKindError",
    "InnerConvergenceError",
    "InputError",
    "MissingDependencyError",
    "NotFittedError",
    "NotPositiveDefiniteError",
    "RegistryError",
    "RemlSaeError",
    "WorkerError",
    "located",
    "require",
]


class RemlSaeError(Exception):
    """Base class of all errors raised on purpose by reml_sae."""


class InputError(RemlSaeError, ValueError):
    """Data or a parameter is unusable; the message names it, its value and the remedy."""


class ArtifactError(InputError):
    """A file that holds no fit, or one that was changed since it was written."""


class RegistryError(InputError):
    """A name (a penalty kind, a topology) is unknown or its configuration is invalid."""


class NotFittedError(RemlSaeError, sklearn.exceptions.NotFittedError):
    """A fitted attribute or method was used before ``fit``."""


class NotPositiveDefiniteError(RemlSaeError, ArithmeticError):
    """A matrix that must be positive definite is not.

    Attributes
    ----------
    row : int or None
        Index of the first row block that failed; None when the border's Schur complement failed.
    """

    def __init__(self, message: str, row: int | None = None):
        super().__init__(message)
        self.row = row


class InnerConvergenceError(RemlSaeError, ArithmeticError):
    """The inner solve (PIRLS) did not reach a stationary point."""


class ForeignKindError(RemlSaeError, RuntimeError):
    """A penalty, topology or family of others failed in the middle of a fit; the message names it.

    `reml_sae.penalties.check_penalty` and `reml_sae.manifolds.check_manifold` tell more.
    """


class MissingDependencyError(RemlSaeError, ImportError):
    """An optional dependency is missing; the message says the pip command."""


class WorkerError(RemlSaeError, RuntimeError):
    """A worker process or a cluster was lost; the message names the rows that were not done."""


class ConvergenceWarning(UserWarning):
    """A fit stopped before it converged; the best state so far was kept."""


class DataWarning(UserWarning):
    """The data are usable but degenerate in a way that the user should know."""


def located(path: str, error: Exception, names: Collection[str]) -> str:
    """Message of an error with the path of what it is about.

    A message that begins with one of the ``names``, as validators of fields do ("gamma must be
    ..", "parts[1].gamma must be .."), continues the path; another one follows it.
    """
    first = re.match(r"\w+", str(error))
    return f"{path}{'.' if first and first[0] in names else ': '}{error}"


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import an optional dependency.

    Raises
    ------
    MissingDependencyError
        With the pip command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs {module.split('.')[0]}: pip install 'reml-sae[{extra}]'"
        ) from error
