"""Kinds that others wrote are asked before a fit is made with them, and watched while it is.

What is none of the package's may raise, return another shape or numbers that are not finite; in a
fit that comes to light far from where it is wrong, or never: a search steps back from what is not
a number. No question before a fit finds all of it, so that their methods name themselves too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from inspect import isfunction
from typing import Any, TypeVar

import numpy as np

from reml_sae.errors import ForeignKindError, InputError, RemlSaeError, located
from reml_sae.typing import Array

T = TypeVar("T")


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def answering(thing: T, place: str, ask: Callable[[T], None]) -> T:
    """What is the package's as it is; of others, what answers, watched.

    Raises
    ------
    InputError
        What ``ask`` raises, with the place of the argument.
    """
    if _is_ours(type(thing)):
        return thing
    try:
        ask(thing)
    except InputError as error:
        raise InputError(located(place, error, ())) from error.__cause__
    return watched(thing)


def watched(thing: T) -> T:
    """The same object, which names its methods where they raise or return what is not a number.

    Methods that a class of the package knows are watched; the others are no answers. A search may
    ask for what is infinite and step back from it, so infinities are let pass.
    """
    kind: type = type(thing)
    made = copy.copy(thing)
    object.__setattr__(made, "__class__", _watched(kind))
    return made


@cache
def _watched(kind: type) -> type:
    """The class with watched methods; its objects are equal to, and pickled as, those of it."""
    ours = {name for base in kind.__mro__ if _is_ours(base) for name in dir(base)}
    methods = {name: _watching(name, method) for base in reversed(kind.__mro__)
               if not _is_ours(base) for name, method in vars(base).items()
               if isfunction(method) and name in ours and not name.startswith("_")}

    def plain(own: Any) -> Any:
        out: Any = object.__new__(kind)
        state = own.__getstate__()
        for part in state if isinstance(state, tuple) else (state,):  # of a class with slots, two
            for name, value in (part or {}).items():
                object.__setattr__(out, name, value)
        return out

    def is_equal(own: Any, other: Any) -> Any:
        same: Any = kind.__eq__
        return same(own if type(other) is type(own) else plain(own), other)

    more: dict[str, Any] = {"__slots__": (), "__module__": kind.__module__,
                            "__reduce__": lambda own: (watched, (plain(own),))}
    if any("__eq__" in vars(base) for base in kind.__mro__[:-1]):
        more |= {"__eq__": is_equal, "__hash__": kind.__hash__}
    return type(kind)(kind.__name__, (kind,), methods | more)


def _watching(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def asked(own: Any, *arguments: Any, **named: Any) -> Any:
        try:
            found = method(own, *arguments, **named)
        except RemlSaeError:
            raise
        except Exception as error:
            raise ForeignKindError(_named(own, name) + f" raised {type(error).__name__} in the "
                                   f"middle of a fit: {error}") from error
        if _has_nan(found) and not _has_nan((*arguments, *named.values())):
            raise ForeignKindError(_named(own, name) + " returned nan in the middle of a fit, for "
                                   "arguments that are numbers")
        return found

    return asked


def _named(thing: Any, method: str) -> str:
    return f"{getattr(thing, 'KIND_TAG', None) or thing.name}.{method}"


def _has_nan(found: Any) -> bool:
    if isinstance(found, tuple | list):
        return any(_has_nan(one) for one in found)
    found = getattr(found, "blocks", found)
    return (isinstance(found, float | np.floating | np.ndarray)
            and np.asarray(found).dtype.kind == "f" and bool(np.isnan(found).any()))


@dataclass(frozen=True)
class Asked:
    """An object whose methods are called and whose answers are read.

    Attributes
    ----------
    thing : object
    name : str
        As messages name it.
    remedy : str
        Sentence on what tells more.
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
                             f"{self.remedy}") from error

    def array(self, method: str, shape: tuple[int, ...], *arguments: Any) -> Array:
        """What a method returns, where it is finite numbers of this shape; else InputError."""
        return self.finite(method, shape, self.answer(method, *arguments))

    def arrays(self, method: str, shapes: Sequence[tuple[int, ...]], *arguments: Any) -> None:
        """The same of a method that returns several arrays; else InputError."""
        found = self.answer(method, *arguments)
        if not isinstance(found, tuple | list) or len(found) != len(shapes):
            raise InputError(f"{self._of(method)} must return {len(shapes)} arrays, got "
                             f"{found!r:.60}; {self.remedy}")
        for one, shape in zip(found, shapes, strict=True):
            self.finite(method, shape, one)

    def finite(self, method: str, shape: tuple[int, ...], found: Any) -> Array:
        """An answer as an array, where it is finite numbers of this shape; else InputError."""
        try:
            out = np.asarray("" if found is None else found, float)
        except (TypeError, ValueError):
            raise InputError(f"{self._of(method)} must return numbers, got {found!r:.60}; "
                             f"{self.remedy}") from None
        if out.shape != shape:
            raise InputError(f"{self._of(method)} must return shape {shape}, got {out.shape}; "
                             f"{self.remedy}")
        if not np.isfinite(out).all():
            raise InputError(f"{self._of(method)} returned {out[~np.isfinite(out)][0]} for finite "
                             f"arguments; {self.remedy}")
        return out

    def _of(self, method: str) -> str:
        return f"{self.name}.{method}"
