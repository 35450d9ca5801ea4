"""Names, configurations, parameters, third-party topologies."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from reml_sae import manifolds
from reml_sae.errors import DataWarning, InputError, RegistryError
from reml_sae.manifolds import (
    Circle,
    Cylinder,
    Duchon,
    Euclidean,
    Interval,
    Mobius,
    Point,
    ProjectivePlane,
    Sphere,
    Torus,
    _registry,
    get_manifold,
    register_manifold,
    registered_manifolds,
)
from reml_sae.registry import Registry
from tests.manifolds.cases import every

NAMES = {"circle": Circle(), "cylinder": Cylinder(), "duchon": Duchon(), "euclidean": Euclidean(),
         "interval": Interval(), "linear": Euclidean(1, 1), "mobius": Mobius(),
         "plane": Euclidean(2, 1), "point": Point(), "projective_plane": ProjectivePlane(),
         "sphere": Sphere(), "torus": Torus()}


@every
def test_configuration_round_trip(manifold):
    assert get_manifold(json.loads(json.dumps(manifold.to_config()))) == manifold


@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=str)
def test_names(name, expected):
    assert name in registered_manifolds()
    assert get_manifold(name) == expected
    assert get_manifold(expected) is expected


@every
def test_contract_constants(manifold):
    assert manifold.linear_dim >= manifold.latent_dim - (manifold.name == "sphere")
    expected = {"circle": 2, "interval": 2, "torus": 4, "cylinder": 3, "sphere": 3, "mobius": 3,
                "projective_plane": 5}.get(manifold.name, manifold.latent_dim)
    assert manifold.linear_dim == expected
    assert manifold.is_euclidean == (manifold.name in ("euclidean", "interval", "duchon"))


@pytest.mark.parametrize("make", [
    lambda: Circle(0), lambda: Circle(1.5), lambda: Circle(True),
    lambda: Euclidean(0), lambda: Euclidean(1, 4),
    lambda: Sphere(0), lambda: Sphere(2.0), lambda: Sphere(11),
    lambda: ProjectivePlane(3), lambda: ProjectivePlane(0), lambda: ProjectivePlane("2"),
    lambda: Torus(0), lambda: Interval(4), lambda: Interval(7.5),
    lambda: Cylinder(0), lambda: Cylinder(1, 0), lambda: Cylinder(1, 4), lambda: Mobius(0),
    lambda: Duchon(0), lambda: Duchon(4), lambda: Duchon(2, 3), lambda: Duchon(1, "9"),
])
def test_bad_parameters(make):
    with pytest.raises(InputError, match=r"^(n_harmonics|dim|degree|n_basis|n_centres) must be .*, "
                                         "got "):
        make()


def test_unknown_topology_names_the_near_ones():
    with pytest.raises(RegistryError, match="'circle'"):
        get_manifold("circel")
    with pytest.raises(RegistryError, match="unknown topology"):
        get_manifold({"topology": ["circle"]})
    with pytest.raises(RegistryError, match="n_harmonic"):
        get_manifold({"topology": "circle", "n_harmonic": 2})


@pytest.fixture
def registry(monkeypatch):
    fresh = Registry("topology", _registry.TOPOLOGIES.items, "reml_sae.manifolds",
                     register_manifold)
    monkeypatch.setattr(_registry, "TOPOLOGIES", fresh)


@dataclass(frozen=True)
class Ring(Circle):
    name: ClassVar[str] = "ring"


def test_a_topology_of_the_running_program(registry):
    register_manifold("ring", Ring)
    assert get_manifold({"topology": "ring", "n_harmonics": 3}) == Ring(3)
    assert get_manifold(Ring(3).to_config()) == Ring(3)
    with pytest.raises(RegistryError, match="already registered"):
        register_manifold("ring", Circle)
    with pytest.raises(RegistryError, match="needs a class"):
        register_manifold("disc", Ring(2))
    assert "ring" not in manifolds.__all__


def test_topologies_of_installed_packages(registry, tmp_path, monkeypatch):
    info = tmp_path / "ring_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ring-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[reml_sae.manifolds]\nring = ring_example:Ring\nshattered = a_missing_module:Shattered\n"
        "circle = ring_example:Ring\n")
    (tmp_path / "ring_example.py").write_text("from tests.manifolds.test_registry import Ring\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(DataWarning) as caught:
        assert "ring" in registered_manifolds()
    told = " ".join(sorted(str(warning.message) for warning in caught))
    assert "'shattered' of package 'ring-example'" in told
    assert "'circle' is already registered" in told
    assert len(caught) == 2
    assert get_manifold({"topology": "ring", "n_harmonics": 3}) == Ring(3)
    assert type(get_manifold("circle")) is Circle
    with pytest.raises(RegistryError, match="a_missing_module"):
        get_manifold("shattered")
