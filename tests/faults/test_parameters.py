"""Parameters and matrices that cannot be used are refused by name, before the search."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_circles
from reml_sae.errors import DataWarning, InputError

Z = planted_circles(40, 4, 1).Z
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 5))


def fit(data=Z, **parameters):
    return rs.SAEManifold(**{"n_atoms": 1, "n_init": 1, "max_outer": 60, **parameters}).fit(data)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"random_state": np.random.RandomState(0)}, "random_state must be an integer >= 0"),
    ({"random_state": np.random.default_rng(0)}, "random_state must be an integer >= 0"),
    ({"random_state": -1}, "random_state must be an integer >= 0, got -1"),
    ({"random_state": "x"}, "random_state must be an integer >= 0, got 'x'"),
    ({"random_state": True}, "random_state"),
    ({"demote": "no"}, "demote must be True or False, got 'no'"),
    ({"callbacks": print}, "callbacks must be a list"),
    ({"callbacks": "print"}, "callbacks must be a list"),
    ({"callbacks": [print, 5]}, r"callbacks\[1\] must be callable, got 5"),
    ({"topology": {"topology": "circle", "n_harm": 2}}, "'n_harm'; it has n_harmonics"),
    ({"topology": {"topology": "linear", "dim": 2}}, "no parameter 'dim'; it has none"),
    ({"row_noise": {"row_noise": "student_t", "dof": 2}}, "no parameter 'dof'; it has df"),
])
def test_parameters(parameters, message):
    with pytest.raises(InputError, match=message) as caught:
        fit(**parameters)
    assert "__init__" not in str(caught.value)


def spoiled(value):
    data = Z.copy()
    data[3, 2] = value
    return data


def one_column():
    data = np.zeros((80, 6))
    data[:, 2] = RNG.normal(size=80)
    return data


@pytest.mark.parametrize(("data", "message"), [
    (np.ma.masked_greater(Z, 0.5), "masked array, and [0-9]+ of its entries"),
    (CENTRES[np.arange(60) % 3], "60 rows, but only 3 distinct ones"),
    (CENTRES[np.arange(60) % 2], "60 rows, but only 2 distinct ones"),
    (RNG.normal(size=(60, 1)), "n_features = 1"),
    (one_column(), "only column 2 varies"),
    (np.outer(np.arange(80.0), CENTRES[0]), "one straight line"),
    (spoiled(1e6), "row 3 .1 of 40. holds 100%"),
    (spoiled(1e100), "row 3 .1 of 40. holds 100%"),
    (spoiled(1e155), r"entries of up to 1e\+155"),
    (1e-170 * Z, "squares in its units would underflow"),
    (Z + 1e14, "keeps too few digits"),
])
@pytest.mark.parametrize("n_atoms", [1, "auto"])
def test_matrices(data, message, n_atoms):
    with pytest.raises(InputError, match=message):
        fit(data, n_atoms=n_atoms)


@pytest.mark.parametrize("offset", [1e8, 1e10, 1e12])
def test_a_small_signal_on_a_large_offset(offset):
    explained = fit().score(Z)
    assert fit(Z + offset).score(Z + offset) == pytest.approx(explained, abs=1e-4)


def test_repeated_rows_with_noise_are_data():
    twice = np.repeat(Z, 2, axis=0)
    assert np.isfinite(fit(twice).criterion_)
    with pytest.warns(DataWarning, match="constant"):
        fit(np.ones((20, 4)))


def test_reconstruct_takes_codes_alone():
    model = fit()
    assert model.reconstruct(model.codes_).shape == Z.shape
    for other in (Z, None, model.codes_.assignments):
        with pytest.raises(InputError, match="Codes that encode returns"):
            model.reconstruct(other)
    with pytest.raises(InputError, match="of 2 atoms, this model has 1"):
        model.reconstruct(fit(n_atoms=2, topology="point").codes_)


@pytest.mark.parametrize("text", ["two", "-1", "1.5", ""])
def test_number_of_atoms_on_the_command_line(text, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "Z.npy", f"-k={text}", "-o", "out"])
    assert f"must be a number of atoms, or auto, got {text!r}" in capsys.readouterr().err
