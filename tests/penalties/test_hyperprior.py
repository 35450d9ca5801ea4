"""Normal priors of outer parameters."""

import numpy as np
import pytest
from scipy.stats import norm

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties.hyperprior import LogStrengthPriorPenalty

NAMES = ("softmax_assignment_sparsity.logits", "harmonic_roughness.decoder[0]",
         "harmonic_roughness.decoder[1]", "ard.coordinates[2].0", "log_dispersion")


def prior(**values):
    return LogStrengthPriorPenalty(**{"names": ["*"], "mean": 0.0, "sd": 1.0, **values})


@pytest.mark.parametrize(("patterns", "expected"), [
    (["harmonic_roughness.*"], [1, 2]),
    (["harmonic_roughness.decoder[1]"], [2]),
    (["*[2]*", "log_dispersion"], [3, 4]),
    (["harmonic_roughness.decoder[?]", "harmonic_roughness.*"], [1, 2]),
    (["*"], [0, 1, 2, 3, 4]),
    (["LOG_DISPERSION"], []),
    (["log"], []),
])
def test_select(patterns, expected):
    found = prior(names=patterns).select(NAMES)
    assert found.dtype == np.intp
    assert found.tolist() == expected


def test_it_is_the_normal_density():
    rho = np.array([0.3, -2.0, 5.0])
    penalty = prior(mean=1.0, sd=2.5)
    log_density = -penalty.value(rho, np.zeros(0)) - penalty.log_partition(np.zeros(0), 3)[0]
    assert log_density == pytest.approx(norm.logpdf(rho, 1.0, 2.5).sum())


def test_it_owns_no_outer_parameter():
    penalty = prior()
    assert penalty.tier() is pen.PenaltyTier.RHO and penalty.acts_on() == "outer"
    assert penalty.rho_count() == penalty.n_strengths() == 0
    assert penalty.is_normalised and not penalty.is_learnable


@pytest.mark.parametrize(("values", "message"), [
    ({"names": "log_dispersion"}, "names must be a list"),
    ({"names": []}, "names must be a list"),
    ({"names": ["ok", 3]}, r"names\[1\] must be a name"),
    ({"names": [""]}, r"names\[0\] must be a name"),
    ({"mean": "0"}, "mean must be a finite number"),
    ({"mean": True}, "mean must be a finite number"),
    ({"mean": float("nan")}, "mean must be a finite number"),
    ({"sd": 0.0}, "sd must be a positive number"),
    ({"learnable": True}, "learnable must be False"),
    ({"atom": 0}, "atom must be None"),
])
def test_wrong_parameters(values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        prior(**values)
    with pytest.raises(RegistryError, match=rf"^penalties\[2\]\.{message}"):
        pen.from_config({"kind": "log_strength_prior", "names": ["*"], "mean": 0.0, "sd": 1.0,
                         **values}, path="penalties[2]")
