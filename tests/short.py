"""A search that looks at little, for tests of other things than what it finds."""

from functools import partial

from reml_sae.discovery.fitting import Settings
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.estimators import sae_manifold
from reml_sae.relaxations.policy import CarryPolicy, JointPolicy, RelaxationPolicy

SHORT = SearchPolicy(relaxation=RelaxationPolicy(
    joint=JointPolicy(few_random=1, most_random=1, patience=1, confirmed=1),
    carry=CarryPolicy(most_planes=2, patience=1)))
"""Codes are sought by a few chains and planes, not by hundreds."""


def use(setattr=setattr):
    """Fits are by it from now on."""
    setattr(sae_manifold, "Settings", partial(Settings, policy=SHORT))
