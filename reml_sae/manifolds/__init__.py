"""Atom topologies: bases, derivatives, roughness, gauge, retraction."""

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._check import check_manifold
from reml_sae.manifolds._fourier import wrap_angle
from reml_sae.manifolds._registry import get_manifold, register_manifold, registered_manifolds
from reml_sae.manifolds.circle import Circle
from reml_sae.manifolds.cylinder import Cylinder
from reml_sae.manifolds.duchon import Duchon
from reml_sae.manifolds.euclidean import Euclidean
from reml_sae.manifolds.interval import Interval
from reml_sae.manifolds.mobius import Mobius
from reml_sae.manifolds.point import Point
from reml_sae.manifolds.projective_plane import ProjectivePlane
from reml_sae.manifolds.sphere import Sphere
from reml_sae.manifolds.torus import Torus

__all__ = [
    "Circle",
    "Cylinder",
    "Duchon",
    "Euclidean",
    "Interval",
    "Manifold",
    "Mobius",
    "Point",
    "ProjectivePlane",
    "Sphere",
    "Torus",
    "check_manifold",
    "get_manifold",
    "register_manifold",
    "registered_manifolds",
    "wrap_angle",
]
