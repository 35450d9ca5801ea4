"""Things that go by a name: the package's own, and those of packages installed beside it."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from reml_sae.errors import DataWarning, RegistryError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one sort.

    Parameters
    ----------
    noun : str
        What messages call one of them.
    items : mapping of names to things
    group : str, optional
        Entry-point group in which installed packages offer more; it is read when a name is first
        asked for.
    admit : callable, optional
        Called with an entry point's name and what it loads; it is to register that, or to raise.

    """

    def __init__(
        self, noun: str, items: Mapping[str, T], group: str | None = None,
        admit: Callable[[str, Any], object] | None = None,
    ):
        self.noun, self.items = noun, dict(items)
        self._group, self._admit = group, admit
        self._broken: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        self._read_entry_points()
        return tuple(sorted(self.items))

    def get(self, name: object) -> T:
        """What goes by a name.

        Raises
        ------
        RegistryError
            Where the name is unknown, with the near ones, or why an installed one failed to load.
        """
        known = self.names()
        if isinstance(name, str) and name in self.items:
            return self.items[name]
        if isinstance(name, str) and name in self._broken:
            raise RegistryError(self._broken[name])
        raise RegistryError(f"unknown {self.noun} {name!r}; {near_names(name, known)}"
                            f"known: {', '.join(known)}")

    def make(self, config: object, key: str) -> Any:
        """Call what goes by a name, or by that which a mapping has under ``key``, with the rest.

        Raises
        ------
        RegistryError
            Where the name, or a key of the mapping, is unknown.
        """
        rest = dict(config) if isinstance(config, Mapping) else {key: config}
        if key not in rest:
            raise RegistryError(f"{self.noun}: {rest!r} has no key {key!r}, the name of one; "
                                f"known: {', '.join(self.names())}")
        name = rest.pop(key)
        factory: Any = self.get(name)
        known = inspect.signature(factory).parameters
        unknown = [key for key in rest if key not in known]
        if unknown and not any(item.kind is item.VAR_KEYWORD for item in known.values()):
            raise RegistryError(f"{self.noun} {name!r} has no parameter {unknown[0]!r}; it has "
                                f"{', '.join(known) or 'none'}")
        missing = [key for key, item in known.items() if item.default is item.empty
                   and item.kind is item.POSITIONAL_OR_KEYWORD and key not in rest]
        if missing:
            raise RegistryError(f"{self.noun} {name!r} needs {', '.join(missing)}")
        try:
            return factory(**rest)
        except TypeError as error:
            raise RegistryError(f"{self.noun} {name!r}: {error}") from error

    def _read_entry_points(self) -> None:
        if self._group is None or self._admit is None:
            return
        group, self._group = self._group, None
        for entry in entry_points(group=group):
            try:
                self._admit(entry.name, entry.load())
            except Exception as error:  # whatever other people's code raises, the rest must work
                package = f" of package {entry.dist.name!r}" if entry.dist else ""
                self._broken[entry.name] = (
                    f"{self.noun} entry point {entry.name!r}{package} cannot be loaded: "
                    f"{type(error).__name__}: {error}")
                warnings.warn(self._broken[entry.name], DataWarning, stacklevel=5)


def near_names(name: object, known: Collection[str], n: int = 3, cutoff: float = 0.4) -> str:
    """The beginning of a hint, "did you mean 'circle'? "; empty where no name is near."""
    near = difflib.get_close_matches(str(name), known, n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
