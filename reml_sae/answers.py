"""Kinds that others wrote are asked before a fit is made with them.

What is none of the package's may raise, return another shape or numbers that are not finite; in a
fit that comes to light far from where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reml_sae.errors import InputError, RemlSaeError
from reml_sae.typing import Array


def is_foreign(thing: object) -> bool:
    """Whether a class is defined outside of this package."""
    return type(thing).__module__.partition(".")[0] != __name__.partition(".")[0]


@dataclass(frozen=True)
class Asked:
    """An object whose methods are called and whose answers are read.

    Attributes
    ----------
    thing : object
    name : str
        As messages name it.
    remedy : str
        What tells more, such as ``"check_penalty"``.
    """

    thing: object
    name: str
    remedy: str

    def answer(self, method: str, *arguments: Any) -> Any:
        """What a method returns.

        Raises
        ------
        InputError
            Naming the method, where it raises anything that is none of the package's errors.
        """
        try:
            return getattr(self.thing, method)(*arguments)
        except RemlSaeError:
            raise
        except Exception as error:
            raise InputError(f"{self._of(method)} raised {type(error).__name__}: {error}; "
                             f"{self._advice}") from error

    def array(self, method: str, shape: tuple[int, ...], *arguments: Any) -> Array:
        """What a method returns, where it is finite numbers of this shape; else InputError."""
        return self.finite(method, shape, self.answer(method, *arguments))

    def arrays(self, method: str, shapes: Sequence[tuple[int, ...]], *arguments: Any) -> None:
        """The same of a method that returns several arrays; else InputError."""
        found = self.answer(method, *arguments)
        if not isinstance(found, tuple | list) or len(found) != len(shapes):
            raise InputError(f"{self._of(method)} must return {len(shapes)} arrays, got "
                             f"{found!r:.60}; {self._advice}")
        for one, shape in zip(found, shapes, strict=True):
            self.finite(method, shape, one)

    def finite(self, method: str, shape: tuple[int, ...], found: Any) -> Array:
        """An answer as an array, where it is finite numbers of this shape; else InputError."""
        try:
            out = np.asarray("" if found is None else found, float)
        except (TypeError, ValueError):
            raise InputError(f"{self._of(method)} must return numbers, got {found!r:.60}; "
                             f"{self._advice}") from None
        if out.shape != shape:
            raise InputError(f"{self._of(method)} must return shape {shape}, got {out.shape}; "
                             f"{self._advice}")
        if not np.isfinite(out).all():
            raise InputError(f"{self._of(method)} returned {out[~np.isfinite(out)][0]} for finite "
                             f"arguments; {self._advice}")
        return out

    def _of(self, method: str) -> str:
        return f"{self.name}.{method}"

    @property
    def _advice(self) -> str:
        return f"{self.remedy} compares it with what is asked for"
