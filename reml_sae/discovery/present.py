"""A fit that there is, from which a search goes on instead of looking for starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.metric import MetricRows
from reml_sae.engine import OuterKey
from reml_sae.errors import InnerConvergenceError
from reml_sae.families.noise import Noise
from reml_sae.manifolds import Manifold


@dataclass(frozen=True, eq=False)
class PresentFit:
    """What a search takes over of a fit.

    Attributes
    ----------
    atoms : sequence of Manifold
    codes : Candidate
        Of the rows of the new fit.
    rho : mapping of OuterKey to float
    noise : Noise
        In whose metric it was fitted; isotropic where its atoms had noises of their own, which
        come last in a search.
    digest : str
        Of all this.
    """

    atoms: Sequence[Manifold]
    codes: Candidate
    rho: Mapping[OuterKey, float]
    noise: Noise
    digest: str

    def fit(self, rows: MetricRows, settings: Settings) -> Fitted:
        """A rough fit from its codes and strengths, with the best decoders for them.

        Raises
        ------
        InnerConvergenceError
            Where these lead to no usable state.
        """
        metric = rows.whitened(self.noise) if settings.noise != "isotropic" else rows
        model = model_from_codes(metric, self.atoms, settings, self.codes, self.rho)
        fitted = rough_fit(model, settings, "the present fit")
        if fitted is None:
            raise InnerConvergenceError("the present fit leads to no usable state on these rows; "
                                        "set warm_start=False to look for starts")
        return fitted
