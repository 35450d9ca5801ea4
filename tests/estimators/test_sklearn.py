"""scikit-learn's own checks of an estimator, less those that do not apply."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import reml_sae as rs

CODES = "transform returns Codes, which hold more than one array"
NOT_OURS = {
    "check_pipeline_consistency": CODES,
    "check_estimators_pickle": CODES,
    "check_transformer_data_not_an_array": CODES,
    "check_transformer_general": CODES,
    "check_transformer_preserve_dtypes": CODES,
    "check_methods_sample_order_invariance": CODES,
    "check_methods_subset_invariance": CODES,
    "check_fit_idempotent": CODES,
    "check_dtype_object": "an InputError is a ValueError, not a TypeError",
    "check_n_features_in_after_fitting": "the argument is Z, and the message says so",
}
MODEL = rs.SAEManifold(n_atoms=1, topology="linear", max_outer=5, n_init=1)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([MODEL], expected_failed_checks=lambda estimator: NOT_OURS)
def test_sklearn_checks(estimator, check):
    check(estimator)
