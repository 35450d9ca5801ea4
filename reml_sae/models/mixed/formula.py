"""Formulas of mixed models: what stands in them, before any data are seen.

    y ~ x + C(site) + s(t, k=12) + (x | subject) + (1 | school/class)

The fixed part is a Wilkinson formula, which formulaic reads. Random terms are lme4's: ``(x | g)``
has an intercept and a slope of one full covariance, ``(x || g)`` two independent ones; ``a:b`` are
the combinations of two factors, and ``(x | a/b)`` is ``(x | a) + (x | a:b)``. ``s(t)`` is a
P-spline. A response of successes and failures is ``cbind(successes, failures)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reml_sae.errors import InputError

DEFAULT_K = 10
EXAMPLE = "for example 'y ~ x + s(t) + (x | g)'"


@dataclass(frozen=True)
class RandomPart:
    """One random term: effects of the Wilkinson formula ``effects`` by the factors of ``group``."""

    effects: str
    group: str
    correlated: bool


@dataclass(frozen=True)
class SmoothPart:
    """One smooth of k B-splines of an expression."""

    variable: str
    k: int

    @property
    def name(self) -> str:
        """Its name in results."""
        return f"s({self.variable})"


@dataclass(frozen=True)
class ParsedFormula:
    """The parts of a formula.

    Attributes
    ----------
    text : str
    response : str
    failures : str or None
        The second argument of ``cbind``.
    fixed : str
        A Wilkinson formula without a response.
    smooths : tuple of SmoothPart
    random : tuple of RandomPart
    """

    text: str
    response: str
    failures: str | None
    fixed: str
    smooths: tuple[SmoothPart, ...]
    random: tuple[RandomPart, ...]


def parse_formula(text: str) -> ParsedFormula:
    """Parts of a formula.

    Raises
    ------
    InputError
        Quoting the term that cannot be read.
    """
    sides = text.split("~") if isinstance(text, str) else []
    if len(sides) != 2 or not all(side.strip() for side in sides):
        raise InputError(f"formula must be 'response ~ terms', {EXAMPLE}, got {text!r}")
    response, failures = sides[0].strip(), None
    both = re.fullmatch(r"cbind\((.*)\)", response)
    if both:
        arguments = list(_split(both[1], ","))
        if len(arguments) != 2:
            raise InputError(f"{response}: cbind takes the successes and the failures")
        response, failures = arguments
    fixed: list[str] = []
    smooths: list[SmoothPart] = []
    random: list[RandomPart] = []
    for term in _split(sides[1], "+"):
        if re.match(r"(s|te|ti|t2)\(", term):
            smooths.append(_smooth(term))
        elif term.startswith("(") and len(list(_split(term, "|"))) == 1 and "|" in term:
            random += _random(term)
        elif "|" in term or re.search(r"\bs\(", term):
            raise InputError(f"{term!r}: a random term stands in brackets of its own, (x | g), and "
                             "neither it nor s(t) enters products")
        else:
            fixed.append(term)
    return ParsedFormula(text.strip(), response, failures, " + ".join(fixed) or "1",
                         tuple(smooths), tuple(random))


def _split(text: str, separator: str) -> Iterator[str]:
    """Pieces of a text between separators that stand outside all brackets."""
    depth = start = 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == separator and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    if depth:
        raise InputError(f"{text.strip()!r}: brackets do not match")
    yield text[start:].strip()


def _smooth(term: str) -> SmoothPart:
    inside = re.fullmatch(r"s\((.*)\)", term)
    if not inside:
        raise InputError(f"{term!r}: the smooths of formulas are s(t) and s(t, k=..); tensor "
                         "products and others are made as columns of X and a Smooth")
    variable, *options = _split(inside[1], ",")
    k = DEFAULT_K
    for option in options:
        number = re.fullmatch(r"k\s*=\s*(\d+)", option)
        if not number:
            raise InputError(f"{term!r}: s takes one variable and k, got {option!r}")
        k = int(number[1])
    if not variable:
        raise InputError(f"{term!r}: s needs a variable")
    return SmoothPart(variable, k)


def _random(term: str) -> list[RandomPart]:
    parts = re.fullmatch(r"\(([^|]+)(\|\|?)([^|]+)\)", term)
    group = re.sub(r"\s+", "", parts[3]) if parts else ""
    if not parts or not re.fullmatch(r"[\w.]+([:/][\w.]+)*", group):
        raise InputError(f"{term!r}: a random term is (effects | group) or (effects || group), the "
                         "group a column, a:b or a/b")
    nested = group.split("/")
    return [RandomPart(parts[1].strip(), ":".join(nested[: depth + 1]), parts[2] == "|")
            for depth in range(len(nested))]
