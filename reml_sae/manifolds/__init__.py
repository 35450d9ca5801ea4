"""Atom topologies: bases, derivatives, roughness, gauge, retraction."""

from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._registry import get_manifold, register_manifold, registered_manifolds
from reml_sae.manifolds.circle import Circle, wrap_angle
from reml_sae.manifolds.euclidean import Euclidean

__all__ = [
    "Circle",
    "Euclidean",
    "Manifold",
    "get_manifold",
    "register_manifold",
    "registered_manifolds",
    "wrap_angle",
]
