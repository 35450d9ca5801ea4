"""Input that cannot be used is named; degenerate input works or warns with the reason."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import ConvergenceWarning, DataWarning, InputError, NotFittedError

pytestmark = pytest.mark.usefixtures("searches_once")

Z = planted_circles(60, 6, 1).Z


def fit(data, **parameters):
    return rs.SAEManifold(**{"n_atoms": 1, **parameters}).fit(data)


@pytest.fixture(scope="module")
def model():
    return fit(Z)


def poked(value):
    data = Z.copy()
    data[3, 2] = value
    return data


@pytest.mark.parametrize(("data", "message"), [
    (poked(np.nan), r"Z\[3, 2\] is NaN"),
    (poked(np.inf), r"Z\[3, 2\] is inf"),
    (np.array([["a", "b"], ["c", "d"]]), "dtype"),
    (Z + 1j, "Complex data not supported"),
    (Z[:, 0], "two-dimensional"),
    (np.zeros((0, 4)), "empty"),
    (Z[:1], "n_samples = 1"),
    ([[1.0, 2.0], [3.0]], "not a matrix"),
    (np.array([[1, None], [2, 3]], dtype=object), "no number|not finite"),
    ("nowhere.npy", "no such file"),
    ("data.csv", "unknown file type"),
])
def test_unusable_data(data, message):
    with pytest.raises(InputError, match=message):
        fit(data)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"n_atoms": 0}, "n_atoms"),
    ({"n_atoms": 2.5}, "n_atoms"),
    ({"topology": "circel"}, "'circle'"),
    ({"topology": ["circle", "circle"]}, "n_atoms=1"),
    ({"assignment": "sofmax"}, "'softmax'"),
    ({"family": "gausian"}, "'gaussian'"),
    ({"curvature": "newton"}, "majorizer"),
    ({"penalties": [{"kind": "adr"}]}, r"penalties\[0\]\.kind.*'ard'"),
    ({"penalties": [{"kind": "ard", "latent_dim": 3}]}, r"penalties\[0\]: ard.*dimension 3"),
    ({"penalties": [{"kind": "ard", "latent_dim": 1, "latnt": 1}]}, r"penalties\[0\]\.latnt"),
    ({"n_atoms": 2, "temperature": 0.5,
      "penalties": [{"kind": "softmax_assignment_sparsity", "k_atoms": 2}]},
     "temperature=1, but the rows' shares have 0.5"),
    ({"penalties": [{"kind": "softmax_assignment_sparsity", "k_atoms": 3}]},
     r"penalties\[0\]\.k_atoms must equal n_atoms=1, got 3"),
    ({"penalties": [{"kind": "harmonic_roughness", "period": 5, "atom": 2}]},
     r"penalties\[0\]\.atom must be below n_atoms=1, got 2"),
    ({"penalties": [{"kind": "orthogonality", "latent_dim": 1, "learnable": True}]},
     r"penalties\[0\]\.learnable=True: orthogonality has no known normaliser"),
    ({"penalties": [{"kind": "harmonic_roughness", "period": 5},
                    {"kind": "block_sparsity", "groups": [[0, 1], [1]]}]},
     r"penalties\[1\]\.groups\[1\] repeats index 1"),
    ({"penalties": [{"kind": "row_precision_prior", "precisions": [[[1.0]], [[-1.0]]]}]},
     r"penalties\[0\]\.precisions\[1\]"),
    ({"topology": "linear",
      "penalties": [{"kind": "row_precision_prior", "precisions": [[[1.0]]]}]},
     r"penalties\[0\]: row_precision_prior holds values for 1 rows but the data have 60"),
    ({"topology": "linear", "penalties": [{"kind": "ard", "latent_dim": 1},
                                          {"kind": "sparsity"}]},
     "ard, sparsity act on the same coordinates"),
    ({"topology": "linear", "penalties": [{"kind": "decoder_ridge", "functions": 2}] * 2},
     r"several decoder_ridge act on the same decoder\[0\]; keep one"),
    ({"penalties": [{"kind": "isometry", "n_outputs": 6, "latent_dim": 1}]},
     r"penalties\[0\]: isometry acts on jacobians"),
    ({"penalties": [{"kind": "mechanism_sparsity", "feature_groups": [[0, 1], [2]]}]},
     r"penalties\[0\]: mechanism_sparsity is for decoders of 3 columns but the data have 6"),
    ({"penalties": [{"kind": "log_strength_prior", "names": ["no_such_*"], "mean": 0.0,
                     "sd": 1.0}]},
     r"no outer parameter by names=\['no_such_"),
    ({"penalties": "ard"}, "list"),
    ({"tol": 0.0}, "tol"),
    ({"max_outer": 0}, "max_outer"),
    ({"n_init": -1}, "n_init"),
    ({"temperature": np.nan}, "temperature"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(InputError, match=message):
        fit(Z, **parameters)


def test_feature_mismatch(model):
    with pytest.raises(InputError, match="3 features, but SAEManifold is expecting 6"):
        model.encode(Z[:, :3])


@pytest.mark.parametrize("call", ["transform", "predict", "score", "summary", "save"])
def test_unfitted(call, tmp_path):
    argument = {"summary": (), "save": (tmp_path / "x.safetensors",)}.get(call, (Z,))
    with pytest.raises(NotFittedError, match="fit"):
        getattr(rs.SAEManifold(), call)(*argument)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [
    lambda z: z.astype(np.float32), np.asfortranarray, lambda z: z[::1, ::-1][:, ::-1],
    lambda z: np.lib.stride_tricks.as_strided(z, writeable=False), list,
], ids=["float32", "fortran", "strides", "read-only", "list"])
def test_layouts(change, model):
    assert fit(change(Z)).criterion_ == pytest.approx(model.criterion_, rel=1e-6)


def test_files_and_memmap(tmp_path, model):
    np.save(tmp_path / "z.npy", Z)
    memmap = np.load(tmp_path / "z.npy", mmap_mode="r")
    for source in (memmap, tmp_path / "z.npy", str(tmp_path / "z.npy")):
        assert fit(source).criterion_ == model.criterion_
    (tmp_path / "cut.npy").write_bytes((tmp_path / "z.npy").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        fit(tmp_path / "cut.npy")


def test_safetensors_source(tmp_path, model):
    from safetensors.numpy import save_file

    save_file({"a": Z, "b": Z[:5]}, tmp_path / "z.safetensors")
    with pytest.raises(InputError, match="holds 2 tensors"):
        fit(tmp_path / "z.safetensors")
    assert fit(f"{tmp_path}/z.safetensors::a").criterion_ == model.criterion_


@pytest.mark.parametrize("k", [1, 2])
def test_constant_data(k):
    with pytest.warns((DataWarning, ConvergenceWarning)) as caught:
        found = fit(np.full((30, 4), 3.0), n_atoms=k, max_outer=5)
    assert "constant" in str(caught[0].message)
    np.testing.assert_allclose(found.predict(np.full((2, 4), 3.0)), 3.0, atol=1e-9)
    assert np.isfinite(found.criterion_)


def test_duplicated_rows():
    found = fit(np.repeat(Z[:10], 6, axis=0))
    assert found.converged_
    assert np.isfinite(found.codes_.objective).all()


def test_noise_free():
    exact = planted_circles(30, 4, 1).signal
    assert fit(exact).score(exact) > 1.0 - 1e-6


def test_one_column_is_covered_by_every_curve_but_has_clusters():
    with pytest.raises(InputError, match="n_features = 1: every curve covers one column"):
        fit(Z[:, :1])
    assert np.isfinite(fit(Z[:, :1], topology="point").predict(Z[:, :1])).all()


def test_score_of_constant_rows(model):
    with pytest.raises(InputError, match="no variance"):
        model.score(np.ones((3, 6)))


def test_budget_of_iterations_returns_the_best_state():
    with pytest.warns(ConvergenceWarning, match="budget ran out.*max_outer"):
        found = rs.SAEManifold(n_atoms=2, max_outer=1, tol=1e-12).fit(
            planted_circles(80, 6, 2).Z)
    assert not found.converged_
    assert np.isfinite(found.criterion_)
    assert found.message_
    assert any(check.status == "fail" for check in found.diagnostics_.checks)


def test_interrupt_returns_the_best_state():
    data = planted_circles(80, 6, 2).Z
    for after in (2, 8):
        seen = []

        def interrupt(row, seen=seen, after=after):
            seen.append(row)
            if len(seen) == after:
                raise KeyboardInterrupt

        with pytest.warns(ConvergenceWarning, match="interrupted"):
            found = rs.SAEManifold(n_atoms=2, callbacks=(interrupt,)).fit(data)
        assert len(seen) == after
        assert found.score(data) > 0.5
