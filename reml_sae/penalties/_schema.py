"""What a kind is and which fields it takes, read from its class and its docstring."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, NamedTuple

from reml_sae.penalties._base import Penalty, _plain
from reml_sae.penalties._registry import get


class Documented(NamedTuple):
    """A parameter as a numpydoc section gives it."""

    type: str
    description: str


def schema(kind: str) -> dict[str, Any]:
    """Description of a kind in plain values, as `json.dumps` takes them.

    Where ``tier``, ``acts_on``, ``row_block_diagonal`` or ``proper`` depends on a field with named
    choices, it is a dictionary {field: {choice: value}}; where on other fields, None.

    Parameters
    ----------
    kind : str

    Returns
    -------
    dict
        ``kind``, ``class``, ``summary``, ``formula``, ``tier``, ``acts_on``,
        ``row_block_diagonal``, ``proper`` (whether the prior has a known normaliser, so that REML
        may choose its strength) and ``fields``: a list of dictionaries with ``name``, ``type``,
        ``required``, ``default`` where there is one, ``description``, and ``enum`` where the
        values are named.
    """
    cls = get(kind)
    documented = documentation(cls)
    inherited = {item.name for item in fields(Penalty)}
    own_first = sorted((item for item in fields(cls) if item.init),
                       key=lambda item: item.name in inherited)
    described = [_field(item, documented.get(item.name, Documented("", "")))
                 for item in own_first]
    choices = {item["name"]: item["enum"] for item in described if "enum" in item}
    return {
        "kind": cls.KIND_TAG,
        "class": cls.PYTHON_WRAPPER,
        "summary": " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()),
        "formula": cls.FORMULA,
        "tier": _by_choice(cls, choices, lambda penalty: penalty.tier().value),
        "acts_on": _by_choice(cls, choices, lambda penalty: penalty.acts_on()),
        "row_block_diagonal": _by_choice(
            cls, choices, lambda penalty: bool(penalty.ROW_BLOCK_DIAGONAL)),
        "proper": _by_choice(cls, choices, lambda penalty: bool(penalty.is_normalised)),
        "fields": described,
    }


def documentation(cls: type) -> dict[str, Documented]:
    """Parameters by name from the docstrings of a class and its bases.

    An entry that only points elsewhere ("See `Penalty`.") leaves the one of the base.
    """
    found: dict[str, Documented] = {}
    for base in reversed(cls.__mro__):
        for name, entry in parameters(base.__doc__ or "").items():
            if name not in found or not entry.description.startswith("See `"):
                found[name] = entry
    return found


def parameters(docstring: str) -> dict[str, Documented]:
    """Entries of the numpydoc section "Parameters"."""
    section = re.search(r"^Parameters\n-{10}\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)",
                        inspect.cleandoc(docstring), flags=re.MULTILINE | re.DOTALL)
    found = {}
    for entry in re.split(r"\n(?=\S)", section[1].strip() if section else ""):
        header, _, description = entry.partition("\n")
        names, _, kind = header.partition(" : ")
        for name in filter(None, (name.strip() for name in names.split(","))):
            found[name] = Documented(kind.strip(), " ".join(description.split()))
    return found


def _field(item: Field[Any], documented: Documented) -> dict[str, Any]:
    kind = documented.type.removesuffix(", optional")
    named = re.search(r"\{[^}]*\}", kind)
    if not kind:
        kind = item.type if isinstance(item.type, str) else item.type.__name__
    field: dict[str, Any] = {"name": item.name, "type": "str" if named else kind}
    default = item.default if item.default_factory is MISSING else item.default_factory()
    field["required"] = default is MISSING
    if default is not MISSING:
        field["default"] = _plain(default)
    field["description"] = documented.description
    if named:
        field["enum"] = list(ast.literal_eval(f"[{named[0][1:-1]}]"))
    return field


def _by_choice(
    cls: type[Penalty], choices: Mapping[str, list[Any]], read: Callable[[Penalty], Any]
) -> Any:
    """A property of a kind, and of each choice where they differ; None where it is not known."""
    usual = _of_blank(cls, {}, read)
    by_choice = {name: {choice: _of_blank(cls, {name: choice}, read) for choice in allowed}
                 for name, allowed in choices.items()}
    differing = {name: found for name, found in by_choice.items() if len(set(found.values())) > 1}
    if usual is None and not differing:
        same = {value for found in by_choice.values() for value in found.values()} - {None}
        return same.pop() if len(same) == 1 else None
    return differing or usual


def _of_blank(cls: type[Penalty], values: dict[str, Any], read: Callable[[Penalty], Any]) -> Any:
    """A property of an instance with nothing but its defaults and these values.

    None where that is not enough: it reads a required field, or an optional one decides.
    """
    absent = {item.name: item.default for item in fields(cls) if item.default is not MISSING}
    absent |= {item.name: item.default_factory() for item in fields(cls)
               if item.default_factory is not MISSING}
    inherited = {item.name for item in fields(Penalty)}
    present = {name: object() if default is None and name not in inherited else default
               for name, default in absent.items()}
    found = []
    for defaults in (absent, present):
        blank = object.__new__(cls)
        blank.__dict__.update({**defaults, **values})
        try:
            found.append(read(blank))
        except (AttributeError, TypeError, ValueError, IndexError):
            return None
    return found[0] if found[0] == found[1] else None


# --- text ------------------------------------------------------------------------------------


def listing(kind: str) -> str:
    """One line about a kind: its name, where it acts, its formula."""
    found = schema(kind)
    tier = found["tier"]
    if isinstance(tier, dict):
        tier = "/".join(sorted({value for by in tier.values() for value in by.values() if value}))
    return f"{kind:<32}{tier or 'any':<10}{found['formula']}".rstrip()


def describe(kind: str) -> str:
    """The schema of a kind as text, with a table of its fields."""
    found = schema(kind)
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    facts = [("P", found["formula"]), ("tier", _text(found["tier"])),
             ("acts on", _text(found["acts_on"])),
             ("row blocks", _text(found["row_block_diagonal"])),
             ("proper", _text(found["proper"]))]
    lines = [f"{found['kind']}  ({found['class']})", "", found["summary"], ""]
    lines += [f"{name:<12}{text}" for name, text in facts]
    table = [("field", "type", "default", "")]
    for item in found["fields"]:
        default = "required" if item["required"] else str(item["default"]).lower()
        description = item["description"]
        if "enum" in item:
            description = f"One of {', '.join(map(str, item['enum']))}. {description}"
        table.append((item["name"], item["type"], default, description))
    columns = [max(len(row[i]) for row in table) + 2 for i in range(3)]
    indent = sum(columns)
    for row in table:
        head = "".join(text.ljust(size) for text, size in zip(row[:3], columns, strict=True))
        description = textwrap.wrap(row[3], max(width - indent, 36)) or [""]
        lines += ["", head + description[0]] if row is table[0] else [head + description[0]]
        lines += [" " * indent + line for line in description[1:]]
    return "\n".join(line.rstrip() for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{choice}: {_text(result)}" for by_choice in value.values()
                         for choice, result in by_choice.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "by its fields" if value is None else str(value)
