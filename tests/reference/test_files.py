"""The reference files are whole: every model has its data, and shapes and figures fit together."""

import json

import numpy as np
import pytest
from scipy.special import expit

from tests.reference import load

MODELS = load.names()
THEIRS = json.loads((load.FOLDER / "summaries.json").read_text())
SMOOTHS = load.names("mgcv")
MIXED = tuple(name for name in MODELS if load.random_terms(name))
LINEAR_MIXED = load.names("lme4", family="gaussian")
LIMIT = 1_000_000
INVERSE_LINKS = {"gaussian": np.array, "student_t": np.array, "poisson": np.exp, "gamma": np.exp,
                 "negative_binomial": np.exp, "binomial": expit}


def all_finite(value):
    if isinstance(value, dict):
        return all(all_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(all_finite(v) for v in value)
    return not isinstance(value, float) or np.isfinite(value)


def test_the_models_that_the_tests_rely_on_are_there():
    packages = {load.figure(name)["package"] for name in MODELS}
    assert packages == {"lme4", "glmmTMB", "mgcv", "by hand"}
    assert {load.figure(name)["family"] for name in MODELS} == set(INVERSE_LINKS)


def test_every_file_is_used_and_the_folder_is_small():
    used = set()
    for name in MODELS:
        entry = load.figure(name)
        used |= {entry["data"], *(item["file"] for item in entry.get("penalties", ()))}
        used |= {f"{entry['design']}.X"} if "design" in entry else set()
        used |= {v for v in entry.get("covariance", {}).values() if isinstance(v, str)}
    used |= {name for name in THEIRS if name != "made_with"}
    files = {path.name.removesuffix(".csv") for path in load.DATA.iterdir()}
    assert files == used
    size = sum(path.stat().st_size for path in load.DATA.iterdir())
    assert size + (load.FOLDER / "figures.json").stat().st_size < LIMIT


@pytest.mark.parametrize("name", MODELS)
def test_response_and_design(name):
    entry = load.figure(name)
    y = load.response(name)
    assert all_finite(entry) and np.isfinite(entry["deviance"]) and np.isfinite(y).all()
    if "design" in entry:
        X = load.design(name)
        assert X.shape[0] == len(y)
        assert np.linalg.matrix_rank(X) == X.shape[1]
        assert not X.flags.writeable
    counts = load.trials(name)
    if counts is not None:
        assert entry["family"] == "binomial" and (y <= counts).all() and (y >= 0).all()
    if entry.get("fitted") is not None:
        assert len(entry["fitted"]) == len(y)


@pytest.mark.parametrize("name", MIXED)
def test_shapes_of_mixed_models(name):
    entry = load.figure(name)
    fixed = entry["fixed"]
    P = len(fixed["names"])
    assert len(fixed["estimate"]) == P
    if "design" in entry:
        assert load.design(name).shape[1] == P
        assert np.shape(fixed["covariance"]) == (P, P)
        assert np.sqrt(np.diag(fixed["covariance"])) == pytest.approx(fixed["se"], rel=1e-12)
    for term in load.random_terms(name):
        G, q = len(term.levels), len(term.columns)
        assert set(term.groups) == set(range(G))
        assert term.Z.shape == (len(load.response(name)), q)
        assert term.ranef.shape == (G, q) and term.sd.shape == (q,)
        assert term.ranef_sd is None or term.ranef_sd.shape == (G, q)
        assert term.correlation.shape == (q, q)
        assert np.diag(term.correlation) == pytest.approx(1.0) or (term.sd == 0).any()
        assert term.covariance in ("diagonal", "full")


@pytest.mark.parametrize("name", LINEAR_MIXED)
def test_fitted_values_of_linear_mixed_models(name):
    entry = load.figure(name)
    eta = load.design(name) @ np.array(entry["fixed"]["estimate"])
    for term in load.random_terms(name):
        eta = eta + (term.Z * term.ranef[term.groups]).sum(1)
    assert eta == pytest.approx(np.array(entry["fitted"]), rel=1e-10)


@pytest.mark.parametrize("name", SMOOTHS)
def test_shapes_and_fitted_values_of_smooths(name):
    entry = load.figure(name)
    X = load.design(name)
    P = X.shape[1]
    for key in ("coefficients", "se_coefficient", "edf_coefficient"):
        assert len(entry[key]) == P, key
    assert sum(entry["edf_coefficient"]) == pytest.approx(entry["edf"], rel=1e-10)
    eta = X @ np.array(entry["coefficients"])
    mean = INVERSE_LINKS[entry["family"]](eta)
    assert mean == pytest.approx(np.array(entry["fitted"]), rel=1e-9)
    ranks = {}
    for penalty in load.penalties(name):
        S = penalty.matrix
        m = len(S)
        assert S.shape == (m, m) and penalty.offset > 0 and penalty.offset + m <= P
        assert pytest.approx(S.T) == S
        spectrum = np.linalg.eigvalsh(S)
        assert spectrum[0] > -1e-10 * spectrum[-1]
        assert (spectrum > 1e-10 * spectrum[-1]).sum() == penalty.rank
        assert penalty.sp == pytest.approx(penalty.strength * (entry["dispersion"] or 1.0))
        ranks[penalty.smooth] = ranks.get(penalty.smooth, 0) + S / np.linalg.norm(S)
    total = sum(np.linalg.matrix_rank(S, tol=1e-10, hermitian=True) for S in ranks.values())
    assert total == P - entry["null_dim"]


@pytest.mark.parametrize("name", load.names("mgcv", family="gaussian"))
def test_score_of_gaussian_smooths_is_the_restricted_likelihood(name):
    """With S = L L' on its range, 2V is -2 log of a linear mixed model's restricted likelihood."""
    entry = load.figure(name)
    X, y, phi = load.design(name), load.response(name), entry["dispersion"]
    S = np.zeros((X.shape[1],) * 2)
    for penalty in load.penalties(name):
        where = slice(penalty.offset, penalty.offset + len(penalty.matrix))
        S[where, where] += penalty.strength * penalty.matrix
    spectrum, U = np.linalg.eigh(S)
    split = entry["null_dim"]
    fixed, free = X @ U[:, :split], X @ U[:, split:]
    V = phi * np.eye(len(y)) + (free / spectrum[split:]) @ free.T
    R = np.linalg.cholesky(V)
    A, z = np.linalg.solve(R, fixed), np.linalg.solve(R, y)
    Q, T = np.linalg.qr(A)
    deviance = ((z - Q @ (Q.T @ z)) ** 2).sum() + 2 * np.log(np.diag(R)).sum()
    deviance += 2 * np.log(np.abs(np.diag(T))).sum() + (len(y) - split) * np.log(2 * np.pi)
    assert deviance == pytest.approx(entry["deviance"], rel=1e-8)


@pytest.mark.parametrize(("name", "deviance"), [
    ("sleepstudy_diagonal_reml", 1743.6693), ("sleepstudy_full_reml", 1743.6283),
    ("sleepstudy_full_ml", 1751.9393), ("dyestuff_reml", 319.6543), ("dyestuff2_reml", 161.8283),
    ("penicillin_crossed_reml", 330.8606), ("pastes_nested_reml", 246.9907),
    ("orange_logistic_laplace_exact", 263.1438),
])
def test_published_deviances(name, deviance):
    assert load.figure(name)["deviance"] == pytest.approx(deviance, abs=1e-4)


def test_published_estimates_of_sleepstudy():
    entry = load.figure("sleepstudy_full_reml")
    assert entry["fixed"]["estimate"] == pytest.approx([251.4051, 10.4673], abs=1e-4)
    assert entry["residual_sd"] == pytest.approx(25.592, abs=1e-3)
    assert entry["random"][0]["sd"] == pytest.approx([24.741, 5.922], abs=1e-3)


def test_corrected_covariance_of_mcycle():
    files = load.figure("mcycle_ps")["covariance"]
    P = load.design("mcycle_ps").shape[1]
    Vp, first, second = (load.matrix(files[key]) for key in ("Vp", "Vc_first", "Vc_second"))
    assert Vp.shape == first.shape == second.shape == (P, P)
    assert np.sqrt(np.diag(Vp)) == pytest.approx(load.figure("mcycle_ps")["se_coefficient"])
    assert np.linalg.eigvalsh(first)[0] > -1e-8 * first.max()
    assert np.linalg.eigvalsh(second)[0] > -1e-8 * second.max()


def test_an_unknown_model_is_named():
    with pytest.raises(KeyError, match="sleepstudy_ful"):
        load.figure("sleepstudy_ful")
    with pytest.raises(KeyError, match="no design matrix"):
        load.design("theoph_reml_exact")


def test_figures_are_plain_json():
    text = (load.FOLDER / "figures.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in figures.json"))
