"""Configurations: errors name the path; every kind describes its fields."""

import inspect
import json
import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest

from reml_sae import penalties as pen
from reml_sae.cli import main
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import _registry
from reml_sae.penalties._schema import describe, documentation, listing, parameters, schema
from tests.penalties.cases import CASES

KINDS = [kind for kind in pen.registered_kinds()
         if pen.get(kind).__module__.startswith("reml_sae.")]
every_kind = pytest.mark.parametrize("kind", KINDS)
GEOMETRIC = {"kind": "geometric", "w_start": 2.0, "w_end": 1.0, "rate": 0.5}
ARD = {"kind": "ard", "latent_dim": 2}
BASE = {item.name for item in fields(pen.Penalty)}


def refused(config, path="penalties[0]"):
    with pytest.raises(RegistryError) as caught:
        pen.from_config(config, path=path)
    return str(caught.value)


@pytest.mark.parametrize(("config", "message"), [
    (3, "penalties[0] must be a dictionary with the key 'kind', got 3"),
    ("ard", "penalties[0] must be a dictionary"),
    (None, "penalties[0] must be a dictionary"),
    ({}, "penalties[0].kind is missing; known: ard, "),
    ({"kind": "adr"}, "penalties[0].kind: unknown penalty kind 'adr'; did you mean 'ard'"),
    ({"kind": ["ard"]}, "penalties[0].kind: unknown penalty kind ['ard']"),
    ({"kind": "ard"}, "penalties[0].latent_dim is missing; kind 'ard' needs latent_dim"),
    ({**ARD, "latent_dim": "2"}, "penalties[0].latent_dim must be an integer"),
    ({**ARD, "latent_dim": True}, "penalties[0].latent_dim must be an integer"),
    ({**ARD, "latnt": 2},
     "penalties[0].latnt is unknown for kind 'ard'; did you mean 'latent_dim'? keys: atom, "),
    ({**ARD, 7: 2}, "penalties[0].7 is unknown"),
    ({**ARD, "weight": "1"}, "penalties[0].weight must be a positive number"),
    ({**ARD, "weight": 0.0}, "penalties[0].weight must be a positive number"),
    ({**ARD, "learnable": "yes"}, "penalties[0].learnable must be"),
    ({**ARD, "atom": -1}, "penalties[0].atom must be an integer >= 0"),
    ({"kind": "quadratic", "S": [1.0]}, "penalties[0].S must have 2 axes, got shape (1,)"),
    ({"kind": "quadratic", "S": [[1.0], [2.0]]}, "penalties[0].S must be a square matrix"),
    ({"kind": "quadratic", "S": [["a"]]}, "penalties[0].S must be an array of numbers"),
    ({"kind": "quadratic", "S": [[float("nan")]]}, "penalties[0].S[0, 0] is not finite"),
    ({**ARD, "weight_schedule": 3}, "penalties[0].weight_schedule must be a dictionary"),
    ({**ARD, "weight_schedule": []}, "penalties[0].weight_schedule must be a dictionary"),
    ({**ARD, "weight_schedule": {**GEOMETRIC, "speed": 1}},
     "penalties[0].weight_schedule.speed is unknown; keys: w_start, "),
    ({**ARD, "weight_schedule": {"w_start": 1.0}}, "penalties[0].weight_schedule.w_end is missing"),
    ({**ARD, "weight_schedule": {**GEOMETRIC, "rate": 1.0}},
     "penalties[0].weight_schedule.rate must be a number in (0, 1), got 1.0"),
    ({"kind": "composite", "parts": [ARD, {"kind": "ard"}]},
     "penalties[0].parts[1].latent_dim is missing"),
    ({"kind": "composite", "parts": [ARD, {**ARD, "weight_schedule": {**GEOMETRIC, "rate": 2}}]},
     "penalties[0].parts[1].weight_schedule.rate must"),
    ({"kind": "composite", "parts": [{"kind": "composite", "parts": [ARD, {**ARD, "weight": 0}]}]},
     "penalties[0].parts[0].parts[1].weight must"),
    ({"kind": "composite"}, "penalties[0].parts is missing"),
])
def test_an_error_names_the_path(config, message):
    assert refused(config).startswith(message)


@pytest.mark.parametrize(("values", "message"), [
    ({"kind": "cubic"}, "kind must be one of 'geometric'"),
    ({"w_start": True}, "w_start must be a number >= 0"),
    ({"w_start": "1"}, "w_start must be a number >= 0"),
    ({"w_end": -1.0}, "w_end must be a number >= 0"),
    ({"w_end": float("inf")}, "w_end must be a number >= 0"),
    ({"w_start": 0.0, "w_end": 0}, "w_end must be positive where w_start is 0"),
    ({"rate": None}, "rate must be a number in"),
    ({"rate": "0.5"}, "rate must be a number in"),
    ({"rate": float("nan")}, "rate must be a number in"),
    ({"steps": 3}, "steps belongs to kind 'linear', not to 'geometric'"),
    ({"kind": "linear", "rate": None}, "steps must be an integer >= 1"),
    ({"kind": "linear", "rate": None, "steps": 2.5}, "steps must be an integer >= 1"),
    ({"kind": "linear", "steps": 3}, "rate belongs to kind 'geometric'"),
    ({"iter_count": 1.0}, "iter_count must be an integer >= 0"),
    ({"iter_count": -1}, "iter_count must be an integer >= 0"),
])
def test_a_schedule_checks_its_fields(values, message):
    with pytest.raises(InputError) as caught:
        pen.ScalarWeightSchedule(**{**GEOMETRIC, **values})
    assert str(caught.value).startswith(message)
    config = {key: value for key, value in {**GEOMETRIC, **values}.items() if value is not None}
    assert refused({**ARD, "weight_schedule": config}, "p").startswith(
        f"p.weight_schedule.{message}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_refuses_by_path(case):
    config = case.penalty.to_config()
    own = {key: value for key, value in config.items() if key not in {"kind", *BASE}}
    assert refused({**config, "weight": -1.0}).startswith("penalties[0].weight ")
    assert refused({**config, "surplus": 1}).startswith("penalties[0].surplus is unknown")
    for item in schema(config["kind"])["fields"]:
        name = item["name"]
        if item["required"]:
            short = {key: value for key, value in config.items() if key != name}
            assert refused(short).startswith(f"penalties[0].{name} is missing")
    for name in own:
        wrong = {**config, name: {"of": "the wrong type"}}
        assert refused(wrong).startswith(f"penalties[0].{name}")


def test_a_foreign_constructor_that_raises_is_placed(monkeypatch):
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Careless(pen.ARDPenalty):
        KIND_TAG: ClassVar[str] = "careless"

        def __post_init__(self):
            raise ValueError("cannot be made")

    monkeypatch.setitem(_registry.KINDS.items, "careless", Careless)
    assert refused({"kind": "careless", "latent_dim": 1}) == "penalties[0]: cannot be made"


@every_kind
def test_every_field_is_described(kind):
    cls, found = pen.get(kind), schema(kind)
    real = {item.name: item for item in fields(cls)}
    own = {name for base in cls.__mro__ if base not in pen.Penalty.__mro__
           for name in parameters(base.__doc__ or "")}
    assert own <= set(real), "the docstring names what is no field"
    assert set(real) - BASE <= own, "a field has no entry in the docstring"
    assert set(documentation(cls)) == set(real)
    assert [item["name"] for item in found["fields"]][-len(BASE):] == [
        item.name for item in fields(pen.Penalty)]
    for item in found["fields"]:
        field = real[item["name"]]
        assert item["type"] and (item["description"] or "enum" in item), item["name"]
        assert item["required"] == (
            field.default is MISSING and field.default_factory is MISSING)
        assert ("default" in item) != item["required"]
        if "enum" in item and item.get("default") is not None:
            assert item["default"] in item["enum"]
    assert found["formula"] and found["summary"]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_schema_is_true_of_the_cases(case):
    found = schema(case.penalty.KIND_TAG)
    actual = {"tier": case.penalty.tier().value, "proper": case.penalty.is_normalised,
              "acts_on": case.penalty.acts_on(),
              "row_block_diagonal": case.penalty.ROW_BLOCK_DIAGONAL}
    for key, value in actual.items():
        stated = found[key]
        if isinstance(stated, dict):
            stated = {by[getattr(case.penalty, name)] for name, by in stated.items()}
            assert value in stated or None in stated
        else:
            assert stated is None or stated == value, key


def test_parameters_of_a_docstring():
    found = parameters("""Summary.

    Text.

    Parameters
    ----------
    a, b : {"x", "y"}, optional
        First line
        and second.
    c
        See `Penalty`.

    Returns
    -------
    d : int
    """)
    assert found == {"a": ('{"x", "y"}, optional', "First line and second."),
                     "b": ('{"x", "y"}, optional', "First line and second."),
                     "c": ("", "See `Penalty`.")}
    assert parameters("") == {}


def test_choices_are_named_and_what_depends_on_them(monkeypatch):
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Choosy(pen.ARDPenalty):
        """Proper by choice.

        Parameters
        ----------
        variant : {"wide", "narrow"}
            Which.
        """

        variant: str = "wide"
        KIND_TAG: ClassVar[str] = "choosy"

        @property
        def is_normalised(self):
            return self.variant == "narrow"

    monkeypatch.setitem(_registry.KINDS.items, "choosy", Choosy)
    found = schema("choosy")
    assert found["proper"] == {"variant": {"wide": False, "narrow": True}}
    assert found["tier"] == "psi"
    assert found["fields"][1] | {"description": ""} == {
        "name": "variant", "type": "str", "required": False, "default": "wide",
        "description": "", "enum": ["wide", "narrow"]}
    assert "wide: no; narrow: yes" in describe("choosy")
    assert "One of wide, narrow. Which." in describe("choosy")


@every_kind
def test_the_text_holds_the_schema(kind):
    text, found = describe(kind), schema(kind)
    assert text.startswith(f"{kind}  ({found['class']})")
    for item in found["fields"]:
        assert re.search(rf"^{item['name']} ", text, re.MULTILINE)
    assert "\n" not in listing(kind) and found["formula"] in listing(kind)


def test_the_documentation_lists_every_kind(capsys):
    page = (Path(__file__).parents[2] / "docs" / "penalties.md").read_text()
    block = page.split("```text\n$ reml-sae penalties\n")[1].split("```")[0]
    main(["penalties"])
    built_in = [line for line in capsys.readouterr().out.splitlines()
                if line.split()[0] in KINDS]
    assert block.splitlines() == built_in, "copy what `reml-sae penalties` prints"


def test_the_configurations_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "penalties.md").read_text()
    blocks = re.findall(r"```(toml|json)\n(.*?)```", page, flags=re.DOTALL)
    assert {language for language, _ in blocks} == {"toml", "json"}
    for language, text in blocks:
        config = (tomllib.loads if language == "toml" else json.loads)(text)
        for penalty in config["penalties"]:
            assert pen.from_config(penalty).to_config()["kind"] == penalty["kind"]


def test_from_config_documents_its_parameters():
    assert set(parameters(inspect.getdoc(pen.from_config))) == {"config", "path"}
