"""The scikit-learn face of the engine."""

from reml_sae.estimators._codes import TABLES, Codes, check_suffix
from reml_sae.estimators._folder import FIT_FILE
from reml_sae.estimators._results import Atom
from reml_sae.estimators.sae_manifold import SAEManifold, load

__all__ = ["FIT_FILE", "TABLES", "Atom", "Codes", "SAEManifold", "check_suffix", "load"]
