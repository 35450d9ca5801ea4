"""The scikit-learn face of the engine."""

from reml_sae.estimators._results import Atom, Codes
from reml_sae.estimators.sae_manifold import SAEManifold, load

__all__ = ["Atom", "Codes", "SAEManifold", "load"]
