"""Names of penalties, topologies, families and assignments are looked up in one way."""

import pytest

from reml_sae import penalties as pen
from reml_sae.assignments import get_assignment
from reml_sae.errors import RegistryError
from reml_sae.families import get_family
from reml_sae.manifolds import get_manifold
from reml_sae.registry import Registry, near_names


@pytest.mark.parametrize(("get", "name", "near"), [
    (pen.get, "adr", "ard"), (get_manifold, "circel", "circle"),
    (get_family, "gausian", "gaussian"),
    (lambda name: get_assignment(name, 2), "tpk", "topk")])
def test_a_wrong_name_is_answered_with_the_near_and_the_known(get, name, near):
    with pytest.raises(RegistryError, match=rf"unknown .* '{name}'; .* '{near}'.* known: "):
        get(name)
    with pytest.raises(RegistryError, match=r"unknown .* 7; known: "):
        get(7)


def test_make_calls_with_the_rest_of_the_configuration():
    registry = Registry("thing", {"complex": complex})
    assert registry.make("complex", "thing") == 0.0
    assert registry.make({"thing": "complex", "real": 1.0, "imag": 2.0}, "thing") == 1.0 + 2.0j
    with pytest.raises(RegistryError, match="'complex' has no parameter 'size'; it has real, imag"):
        registry.make({"thing": "complex", "size": 1.0}, "thing")
    assert registry.names() == ("complex",)


def test_no_near_name_is_no_hint():
    assert near_names("zzz", ["circle"]) == ""
