"""Wrong input of mixed models: every error names the argument and says what to do."""

import numpy as np
import pytest

from reml_sae.errors import InputError
from reml_sae.models import MixedModel, Smooth, predict
from tests.models.mixed.systems import build, second_difference

N = 20
RNG = np.random.default_rng(0)
Y, X, Z = RNG.normal(size=N), np.column_stack([np.ones(N), RNG.normal(size=N)]), np.ones((N, 1))
G = np.arange(N) % 4


def changed(array, value, at=(3,)):
    out = np.array(array, float)
    out[at] = value
    return out


@pytest.mark.parametrize(("arguments", "message"), [
    ({"y": changed(Y, np.nan)}, r"y has the non-finite value nan at index \(3,\)"),
    ({"y": np.zeros((0,)), "X": np.zeros((0, 1))}, "y must be a vector of at least one"),
    ({"y": RNG.normal(size=(N, 2))}, "y must be a vector"),
    ({"y": np.array(["a"] * N)}, "y must hold real numbers"),
    ({"X": X[:-1]}, r"X must have shape \(20, k\).*got \(19, 2\)"),
    ({"X": changed(X, np.inf, (2, 1))}, r"X has the non-finite value inf at index \(2, 1\)"),
    ({"groups": G, "Z": Z[:-1]}, r"Z must have shape \(20, k\)"),
    ({"groups": G, "Z": [Z, changed(Z, np.nan, (1, 0))]}, r"Z\[1\] has the non-finite value"),
    ({"groups": G, "Z": np.zeros((N, 1))}, "column 0 of .* is zero everywhere"),
    ({"groups": G, "Z": [Z, np.zeros((N, 0))]}, r"Z\[1\] has no columns"),
    ({"groups": G[:-1], "Z": Z}, "groups must have one label for each of the 20"),
    ({"groups": changed(G, np.nan), "Z": Z}, "groups has a missing label at index 3"),
    ({"groups": G}, "groups and Z belong together"),
    ({"Z": Z}, "groups and Z belong together"),
    ({"offset": np.zeros(3)}, "offset must be one number, or one for each"),
    ({"method": "reml"}, "method must be one of REML, ML, Laplace, got 'reml'"),
    ({"family": "gausian"}, "gaussian"),
    ({"groups": G, "Z": Z, "covariance": "free"}, "covariance must be one of diagonal, full"),
    ({"groups": G, "Z": [Z, Z], "covariance": ["full"]}, "one for each of the 2 terms"),
    ({"n_trials": 3}, "n_trials belongs to family='binomial'"),
    ({"y": np.ones(N), "family": "binomial", "n_trials": np.ones(3)}, "n_trials must be one nu"),
    ({"y": -np.ones(N), "family": "poisson"}, "Poisson"),
    ({"y": X @ [1.0, 2.0]}, "explain y exactly"),
    ({"x_names": ["a"]}, "x_names must be 2 distinct names"),
    ({"groups": G, "Z": Z, "z_names": ["a", "b"]}, "z_names must be 1 distinct names"),
    ({"X": np.column_stack([X, X[:, 0] - 2.0 * X[:, 1]])}, "rank deficient: x2 can be computed"),
    ({"X": np.column_stack([X, np.zeros(N)]), "x_names": ["one", "slope", "empty"]},
     "rank deficient: empty"),
    ({"X": np.eye(N, N + 1)}, "rank deficient: x20"),
])
def test_wrong_data(arguments, message):
    with pytest.raises(InputError, match=message):
        MixedModel(**{"y": Y, "X": X, **arguments})


@pytest.mark.parametrize(("penalties", "message"), [
    (Smooth([1], [np.eye(1)]), "penalties must be a sequence of Smooth"),
    ([np.eye(2)], r"penalties\[0\] must be a Smooth"),
    ([Smooth([1, 2], [np.eye(2)])], r"penalties\[0\].columns must be distinct and within 0..1"),
    ([Smooth([1, 1], [np.eye(2)])], "must be distinct"),
    ([Smooth(slice(2, 3), [np.eye(1)])], "selects none of the 2 columns"),
    ([Smooth(["x1"], [np.eye(1)])], "must be a slice or column numbers"),
    ([Smooth([1], [])], r"penalties\[0\].matrices must be a list"),
    ([Smooth([0, 1], [np.eye(1)])], r"penalties\[0\].matrices\[0\] must have shape \(2, 2\)"),
    ([Smooth([1], [np.full((1, 1), np.nan)])], "not finite"),
    ([Smooth([1], [np.zeros((1, 1))])], "is zero; leave it out"),
    ([Smooth([0, 1], [np.array([[1.0, 1.0], [0.0, 1.0]])])], "not symmetric"),
    ([Smooth([1], [-np.eye(1)])], "must be positive semidefinite"),
    ([Smooth([0], [np.eye(1)]), Smooth([0, 1], [np.eye(2)])],
     r"penalties\[1\].columns holds column 0, which penalties\[0\] penalises"),
    ([Smooth([0], [np.eye(1)], "a"), Smooth([1], [np.eye(1)], "a")], "names must differ"),
])
def test_wrong_smooths(penalties, message):
    with pytest.raises(InputError, match=message):
        MixedModel(Y, X, penalties=penalties)


def test_a_penalty_makes_redundant_columns_legal():
    basis = RNG.normal(size=(N, 6))
    basis[:, 5] = basis[:, 4]
    whole = np.column_stack([X, basis])
    with pytest.raises(InputError, match="x7 can be computed"):
        MixedModel(Y, whole)
    MixedModel(Y, whole, penalties=[Smooth(slice(2, 8), [second_difference(6)])])
    # a null space that the data do not see either is refused
    with pytest.raises(InputError, match="rank deficient"):
        MixedModel(Y, np.column_stack([X, np.tile(X[:, :1], 4)]),
                   penalties=[Smooth(slice(2, 6), [second_difference(4)])])


def test_names_of_a_frame_are_kept():
    pandas = pytest.importorskip("pandas")
    model = MixedModel(Y, pandas.DataFrame({"one": X[:, 0], "dose": X[:, 1]}))
    assert model.x_names == ("one", "dose")


def test_wrong_predictions():
    import reml_sae as rs
    model = build("gaussian", n=40, smooth=False)
    fit = rs.fit_reml(model)
    with pytest.raises(InputError, match="X must have the 2 columns"):
        predict(model, fit, np.ones((3, 1)))
    with pytest.raises(InputError, match="Z must have the 2 columns"):
        predict(model, fit, np.ones((3, 2)), Z=np.ones((3, 1)))
    with pytest.raises(InputError, match="one label for each of the 3"):
        predict(model, fit, np.ones((3, 2)), Z=np.ones((3, 2)), groups=[1])
