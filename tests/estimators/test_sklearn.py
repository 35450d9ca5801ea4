"""scikit-learn's own checks of an estimator, and what its users do with one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import InputError

NOT_OURS = {
    "check_dtype_object": "an InputError is a ValueError, not a TypeError",
    "check_n_features_in_after_fitting": "the argument is Z, and the message says so",
}
MODEL = rs.SAEManifold(n_atoms=1, topology="linear", max_outer=5, n_init=1)
DATA = planted_circles(60, 4, 1, noise_sd=0.05, random_state=1)
CIRCLE = rs.SAEManifold(1, rs.manifolds.Circle(1), noise="isotropic", n_init=1)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([MODEL], expected_failed_checks=lambda estimator: NOT_OURS)
def test_sklearn_checks(estimator, check):
    check(estimator)


def named(order=slice(None)):
    return pd.DataFrame(DATA.Z, columns=["a", "b", "c", "d"], index=range(100, 160)).iloc[:, order]


def test_parameters_of_a_topology_are_those_of_the_estimator():
    model = rs.SAEManifold(1, rs.manifolds.Circle(2))
    given = model.topology
    assert model.get_params()["topology__n_harmonics"] == 2
    assert "topology__n_harmonics" not in model.get_params(deep=False)
    assert model.set_params(topology__n_harmonics=3).topology == rs.manifolds.Circle(3)
    assert given == rs.manifolds.Circle(2)  # an object of the user's is never changed
    model.set_params(topology=rs.manifolds.Sphere(), topology__degree=1, n_atoms=2)
    assert model.topology == rs.manifolds.Sphere(1) and model.n_atoms == 2
    with pytest.raises(InputError, match="it has degree"):
        model.set_params(topology__n_harmonics=1)
    with pytest.raises(InputError, match="n_harmonics must be"):
        rs.SAEManifold(1, rs.manifolds.Circle(2)).set_params(topology__n_harmonics=0)
    with pytest.raises(InputError, match="give a manifold object"):
        rs.SAEManifold(1).set_params(topology__n_harmonics=1)
    assert "topology__n_harmonics" not in rs.SAEManifold(1).get_params()


@pytest.mark.filterwarnings("ignore")
def test_grid_search_and_pipeline():
    search = GridSearchCV(CIRCLE, {"topology__n_harmonics": [1, 2]}, cv=2).fit(DATA.Z)
    assert search.best_score_ > 0.9
    target = np.cos(DATA.coordinates[0][:, 0])
    pipe = make_pipeline(CIRCLE, LinearRegression()).fit(DATA.Z, target)
    assert pipe.score(DATA.Z, target) > 0.98


def test_data_frames_keep_their_names(tmp_path):
    model = rs.SAEManifold(**CIRCLE.get_params(deep=False)).set_output(transform="pandas")
    table = model.fit_transform(named())
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    assert list(table.columns) == ["atom0_amplitude", "atom0_cos", "atom0_sin"]
    assert list(table.index) == list(range(100, 160))
    pd.testing.assert_frame_equal(model.transform(named()), table)
    with pytest.raises(InputError, match="same order"):
        model.encode(named([1, 0, 2, 3]))
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    with pytest.raises(InputError, match="same order"):
        again.predict(named([1, 0, 2, 3]))
    model.fit(DATA.Z)
    assert not hasattr(model, "feature_names_in_")
