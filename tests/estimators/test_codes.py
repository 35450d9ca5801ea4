"""Codes as arrays, tables and files, and the table of transform."""

import warnings

import numpy as np
import pandas as pd
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import ArtifactError, InputError
from reml_sae.estimators import Codes

DATA = planted_circles(60, 4, 2, noise_sd=0.05, random_state=3)
ASSIGNMENTS = ["softmax", "topk", "ordered_beta_bernoulli", "threshold_gate"]
OPTIONS = {"n_init": 1, "noise": "isotropic", "max_outer": 1}


@pytest.fixture(scope="module")
def model():
    warnings.simplefilter("ignore")
    return rs.SAEManifold(2, [rs.manifolds.Circle(1), rs.manifolds.Interval(5)], "topk",
                          **OPTIONS).fit(DATA.Z)


def rows_equal(codes, other):
    assert codes.topologies == other.topologies
    for name in ("assignments", "gates", "objective", "converged", "weights"):
        np.testing.assert_array_equal(getattr(codes, name), getattr(other, name))
    for t, same in zip(codes.coordinates, other.coordinates, strict=True):
        np.testing.assert_array_equal(t, same)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_table_goes_back_to_the_reconstruction(assignment):
    atoms = [rs.manifolds.Circle(1), rs.manifolds.Euclidean(1)]
    model = rs.SAEManifold(2, atoms, assignment, **OPTIONS).fit(DATA.Z[::2])
    codes, table = model.encode(DATA.Z), model.transform(DATA.Z)
    np.testing.assert_allclose(model.inverse_transform(table), model.predict(DATA.Z), atol=1e-9)
    np.testing.assert_allclose(model.reconstruct(codes), model.predict(DATA.Z), atol=1e-9)
    unused = codes.assignments == 0.0
    assert not table[unused[:, 0], :3].any() and not table[unused[:, 1], 3:].any()


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_with_points_goes_back_too():
    model = rs.SAEManifold(2, ["point", "circle"], **OPTIONS).fit(DATA.Z)
    assert list(model.get_feature_names_out())[:2] == ["atom0_amplitude", "atom1_amplitude"]
    np.testing.assert_allclose(model.inverse_transform(model.transform(DATA.Z)),
                               model.predict(DATA.Z), atol=1e-9)


def test_names_and_columns(model):
    names = ["atom0_amplitude", "atom0_cos", "atom0_sin", "atom1_amplitude", "atom1_t"]
    assert list(model.get_feature_names_out()) == names == model.codes_.column_names
    codes, table = model.codes_, model.codes_.to_array()
    on = codes.gates[:, 0]
    t = codes.coordinates[0][on, 0]
    np.testing.assert_allclose(table[on, :3], codes.assignments[on, :1] * np.column_stack(
        [np.ones(len(t)), np.cos(t), np.sin(t)]))
    np.testing.assert_array_equal(np.asarray(codes), table)
    assert np.asarray(codes, np.float32).dtype == np.float32
    frame = codes.to_frame()
    assert list(frame.columns) == [*names, "objective", "converged", "weight"]
    np.testing.assert_array_equal(frame[names], table)


def test_rows_beside_the_manifold_are_moved_onto_it_or_refused(model):
    table = model.codes_[model.codes_.gates[:, 0]].to_array()[:2]
    aside = table.copy()
    aside[:, 1:3] *= 1.7
    np.testing.assert_allclose(model.inverse_transform(aside), model.inverse_transform(table))
    for change, words in [((0, 1, np.nan), r"X\[0, 1\]"), ((1, 0, 0.0), "row 1 has amplitude 0"),
                          ((1, slice(1, 3), 0.0), "row 1 has no direction .* atom 0")]:
        wrong = table.copy()
        wrong[change[0], change[1]] = change[2]
        with pytest.raises(InputError, match=words):
            model.inverse_transform(wrong)
    with pytest.raises(InputError, match="X has 4 columns"):
        model.inverse_transform(table[:, :4])
    with pytest.raises(InputError, match="inverse_transform"):
        model.decode(table)


def test_some_rows(model):
    codes = model.codes_
    mask = codes.gates[:, 0]
    rows_equal(codes[10:20], codes[np.arange(10, 20)])
    rows_equal(codes[mask], codes[np.flatnonzero(mask)])
    rows_equal(codes[-1], codes[59:])
    rows_equal(codes[[]], codes[:0])
    assert len(codes[mask]) == mask.sum() and sum(len(row) for row in codes) == 60
    np.testing.assert_array_equal(model.decode(codes[5:7]), model.decode(codes)[5:7])
    for wrong in ("a", np.zeros((2, 2), int), [0.5]):
        with pytest.raises(InputError, match="slice, a mask or the numbers"):
            codes[wrong]
    with pytest.raises(IndexError):
        codes[60]


def test_files(model, tmp_path):
    codes = model.codes_
    for name in ("codes.npz", "codes.safetensors"):
        codes.save(tmp_path / name)
        rows_equal(Codes.load(tmp_path / name), codes)
    frames = {"codes.csv": pd.read_csv, "codes.parquet": pd.read_parquet}
    for name, read in frames.items():
        if name == "codes.parquet":
            pytest.importorskip("pyarrow")
        codes.save(tmp_path / name)
        pd.testing.assert_frame_equal(read(tmp_path / name), codes.to_frame())
        with pytest.raises(InputError, match="is a table"):
            Codes.load(tmp_path / name)
    model.save(tmp_path / "fit.safetensors")
    with pytest.raises(InputError, match="does not hold codes"):
        Codes.load(tmp_path / "fit.safetensors")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(InputError, match="does not hold codes"):
        Codes.load(tmp_path / "other.npz")
    (tmp_path / "codes.npz").write_bytes((tmp_path / "codes.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="truncated"):
        Codes.load(tmp_path / "codes.npz")
    with pytest.raises(InputError, match=r"\.npz, \.safetensors, \.csv, \.parquet"):
        codes.save(tmp_path / "codes.txt")
    with pytest.raises(InputError, match="no such file"):
        Codes.load(tmp_path / "none.npz")


@pytest.mark.parametrize("name", ["codes.npz", "codes.safetensors", "codes.csv"])
def test_codes_taken_for_a_fit_are_called_codes(model, tmp_path, name):
    model.codes_.save(tmp_path / name)
    with pytest.raises(ArtifactError, match=r"codes.*reml_sae\.Codes\.load"):
        rs.load(tmp_path / name)


def test_short_words(model):
    assert repr(model.codes_).startswith("<Codes of 60 rows on 2 atoms (circle, interval)")
    assert len(repr(model.codes_)) < 120
    assert "circle" in repr(model.atoms_[0]) and len(repr(model.atoms_[0])) < 120
    status = "converged" if model.converged_ else "NOT CONVERGED"
    assert status in repr(model) and "V = " in repr(model)
    assert repr(rs.SAEManifold(n_atoms=2)) == "SAEManifold(n_atoms=2)"
