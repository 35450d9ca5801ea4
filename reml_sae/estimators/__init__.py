"""The scikit-learn face of the engine."""

from reml_sae.estimators._persistence import load
from reml_sae.estimators._results import Atom, Codes
from reml_sae.estimators.sae_manifold import SAEManifold

__all__ = ["Atom", "Codes", "SAEManifold", "load"]
