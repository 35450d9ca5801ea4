"""Bad data and parameters are named; families by name."""

import numpy as np
import pytest

from reml_sae.errors import InputError, RegistryError
from reml_sae.families import (
    Binomial,
    Gamma,
    Gaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
    Tweedie,
    get_family,
    registered_families,
)


@pytest.mark.parametrize(("family", "value", "message"), [
    (Gaussian(), np.nan, r"z\[1, 2\]=nan: .* finite"),
    (StudentT(), -np.inf, r"z\[1, 2\]=-inf: .* finite"),
    (Poisson(), 0.5, r"z\[1, 2\]=0.5: .* counts"),
    (Poisson(), -1.0, r"z\[1, 2\]=-1.0: .* counts"),
    (Poisson(), np.inf, "finite"),
    (NegativeBinomial(), 2.25, r"z\[1, 2\]=2.25: .* counts"),
    (Binomial(3), 0.5, "multiply proportions by n_trials"),
    (Binomial(3), 4.0, r"z\[1, 2\]=4.0: .* n_trials, 3"),
    (Binomial(np.array([[3.0], [2.0]])), 3.0, "n_trials, 2"),
    (Gamma(), 0.0, r"z\[1, 2\]=0.0: .* positive"),
    (Tweedie(), -0.1, r"z\[1, 2\]=-0.1: .* negative"),
    (Tweedie(), np.nan, "finite"),
])
def test_the_first_bad_entry_is_named(family, value, message):
    z = np.ones((2, 4))
    family.check(z)
    z[1, 2:] = value
    with pytest.raises(InputError, match=message):
        family.check(z)


def test_vectors_and_integers():
    Poisson().check(np.array([0, 3, 2]))
    with pytest.raises(InputError, match=r"z\[2\]=-2"):
        Poisson().check(np.array([0, 3, -2]))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Binomial(0), "n_trials=0.0"), (lambda: Binomial([2, 1.5]), r"n_trials\[1\]=1.5"),
    (lambda: Binomial("many"), "n_trials"), (lambda: Binomial(np.nan), "n_trials=nan"),
    (lambda: StudentT(0.0), "df"), (lambda: StudentT("5"), "df"),
    (lambda: Tweedie(2.0), "power .* gamma"), (lambda: Tweedie(1), "power .* poisson"),
])
def test_bad_parameters(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_trials_must_fit_the_data():
    with pytest.raises(InputError, match=r"n_trials has shape \(3,\)"):
        Binomial([1, 2, 3]).check(np.zeros((3, 2)))


def test_rows_of_a_family():
    rows = np.array([2, 0])
    trials = np.array([[4.0], [5.0], [6.0]])
    part = Binomial(trials).restrict(rows, (3, 2))
    np.testing.assert_array_equal(part.n_trials, [[6.0, 6.0], [4.0, 4.0]])
    assert Binomial(3).restrict(rows, (3, 2)).n_trials == 3
    assert Poisson().restrict(rows, (3, 2)) == Poisson()


def test_trials_are_a_copy():
    trials = np.array([2, 3])
    family = Binomial(trials)
    trials[0] = 9
    assert family.n_trials[0] == 2.0
    with pytest.raises(ValueError, match="read-only"):
        family.n_trials[0] = 5.0


def test_by_name():
    assert len(registered_families()) == 7
    for name in registered_families():
        family = get_family(name)
        assert family.name == name and get_family(family) is family
        assert family.n_psi == len(family.psi_names) == len(family.psi_bounds())
    assert get_family({"family": "student_t", "df": 4}) == StudentT(4)


@pytest.mark.parametrize(("name", "message"), [
    ("gausian", "did you mean 'gaussian'"), ("negbinomial", "'negative_binomial'"),
    ("poison", "'poisson'"), ("zzz", "known: binomial, gamma"), (3, "unknown family 3"),
    ({"family": "gamma", "shape": 2}, "family 'gamma' has no parameter 'shape'; it has none"),
    ({"df": 3}, "has no key 'family'"),
])
def test_unknown_names(name, message):
    with pytest.raises(RegistryError, match=message):
        get_family(name)
