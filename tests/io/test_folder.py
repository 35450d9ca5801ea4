"""A fit as a folder: what another reader makes of it, and what ours does not take."""

import json
import socket

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reml_sae as rs
from reml_sae.cli import main
from reml_sae.datasets import planted_circles
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle

DATA = planted_circles(60, 6, 2, noise_sd=0.05)
pytestmark = [pytest.mark.filterwarnings("ignore::reml_sae.errors.ConvergenceWarning"),
              pytest.mark.filterwarnings("ignore::reml_sae.errors.DataWarning")]


@pytest.fixture(scope="module", params=["topk", "softmax"])
def model(request):
    return rs.SAEManifold(n_atoms=2, assignment=request.param, topology=[Circle(1), "linear"],
                          n_init=1, max_outer=3, noise="isotropic").fit(DATA.Z + 1.0)


@pytest.fixture
def folder(model, tmp_path):
    model.save_folder(tmp_path / "sae")
    return tmp_path / "sae"


def matching_pursuit_sae(folder):
    """Encode and decode of SAELens' matching pursuit SAE, by its definition."""
    w, cfg = load_file(folder / "sae_weights.safetensors"), json.loads(
        (folder / "cfg.json").read_text())
    assert cfg["architecture"] == "matching_pursuit" and cfg["apply_b_dec_to_input"]
    assert set(w) == {"W_dec", "b_dec"}, "it loads these strictly"
    assert w["W_dec"].shape == (cfg["d_sae"], cfg["d_in"])
    assert all(value.dtype == np.float32 for value in w.values())
    np.testing.assert_allclose(np.linalg.norm(w["W_dec"], axis=1), 1.0, rtol=1e-6)

    def encode(x):
        left, found = x - w["b_dec"], np.zeros((len(x), len(w["W_dec"])))
        for _ in range(cfg["max_iterations"]):
            scores = np.maximum(left @ w["W_dec"].T, 0.0)
            scores[np.linalg.norm(left, axis=1) < cfg["residual_threshold"]] = 0.0
            best = scores.argmax(axis=1)
            size = scores[np.arange(len(x)), best]
            found[np.arange(len(x)), best] += size
            left = left - size[:, None] * w["W_dec"][best]
        return found

    return encode, lambda f: f @ w["W_dec"] + w["b_dec"], cfg["reml_sae"]["features"]


def test_directions_are_points_of_the_curves(folder, model):
    encode, decode, features = matching_pursuit_sae(folder)
    for j, feature in enumerate(features):
        point = model.atoms_[feature["atom"]].curve(np.array([feature["coordinates"]]))
        x = model.intercept_ + point
        code = feature["length"] * np.eye(len(features))[[j]]
        np.testing.assert_allclose(decode(code), x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(encode(x), code, atol=1e-5)  # an anchor is its own code
    assert np.abs(decode(np.zeros(len(features))) - (DATA.Z + 1.0).mean(axis=0)).max() < 0.5


@pytest.mark.parametrize(("assignment", "n_active"), [
    ("softmax", 1), ("topk", 1), ("topk", 2), ("ordered_beta_bernoulli", 2)])
def test_the_other_reader_explains_nearly_what_the_fit_does(assignment, n_active, tmp_path):
    """Of 24 anchors a circle, at most 7.5 degrees away: 1 - sin(7.5)^2 / 3 of its variance."""
    rng = np.random.default_rng(0)
    planes = np.linalg.qr(rng.normal(size=(10, 4)))[0].T.reshape(2, 2, 10)
    t = rng.uniform(-np.pi, np.pi, (150, 2))
    used = np.ones((150, 2)) if n_active == 2 else np.eye(2)[rng.integers(0, 2, 150)]
    if assignment == "ordered_beta_bernoulli":
        used[rng.uniform(size=150) < 0.5, 1] = 0.0
    circles = np.stack([np.cos(t), np.sin(t)], axis=2)
    Z = np.einsum("nk,nkd,kdp->np", used, circles, planes) + 0.05 * rng.normal(size=(150, 10))
    model = rs.SAEManifold(2, Circle(1), assignment, n_active=n_active,
                           noise="isotropic", n_init=1, max_outer=3).fit(Z)
    model.save_folder(tmp_path / "sae", n_anchors=24)
    encode, decode, _ = matching_pursuit_sae(tmp_path / "sae")
    code = encode(Z)
    left = ((Z - decode(code)) ** 2).sum() / ((Z - Z.mean(axis=0)) ** 2).sum()
    assert 1.0 - left > model.score(Z) - 0.03
    assert abs((code > 0.0).sum(axis=1).mean() - used.sum(axis=1).mean()) < 0.1


def test_load_reads_the_same_fit(folder, model):
    again = rs.load(folder)
    assert again.criterion_ == model.criterion_
    np.testing.assert_array_equal(again.predict(DATA.Z + 1.0), model.predict(DATA.Z + 1.0))
    for atom, own in zip(again.atoms_, model.atoms_, strict=True):
        np.testing.assert_array_equal(atom.coefficients, own.coefficients)


def edit(folder, **changes):
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**cfg, **changes}))


def weigh(folder, change):
    found = load_file(folder / "sae_weights.safetensors")
    change(found)
    save_file(found, folder / "sae_weights.safetensors")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda f: (f / "fit.safetensors").unlink(), r"has no fit.safetensors"),
    (lambda f: (f / "cfg.json").unlink(), r"cfg.json cannot be read"),
    (lambda f: (f / "cfg.json").write_text("{"), r"cfg.json cannot be read"),
    (lambda f: (f / "cfg.json").write_text("[]"), r"reml_sae.n_anchors is None"),
    (lambda f: edit(f, reml_sae={"n_anchors": "8"}), r"reml_sae.n_anchors is '8'"),
    (lambda f: edit(f, d_in=7), r"d_in is 7, that of fit.safetensors is 6"),
    (lambda f: edit(f, architecture="gated"), r"architecture is 'gated'"),
    (lambda f: edit(f, max_iterations=9), r"max_iterations is 9, that of fit.safetensors is 1"),
    (lambda f: (f / "sae_weights.safetensors").write_bytes(b"cut"), r"weights.* cannot be read"),
    (lambda f: weigh(f, lambda w: w.pop("b_dec")), r"has no tensor 'b_dec'"),
    (lambda f: weigh(f, lambda w: w.update(W_dec=-w["W_dec"])), r"W_dec is not that of"),
])
def test_a_spoilt_folder_is_refused_by_name(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        rs.load(folder)


def test_what_the_other_reader_wants_to_know_may_be_filled_in(folder):
    edit(folder, metadata={"hook_name": "blocks.3.hook_resid_post"})
    assert rs.load(folder).atoms_


def test_remains_of_a_killed_run_are_removed(model, folder):
    remains = folder.with_name(f".new.{socket.gethostname().replace('.', '-')}-4194305.ab.part")
    remains.mkdir()
    (remains / "cfg.json").write_text("{}")
    model.save_folder(folder.parent / "new")
    assert {item.name for item in folder.parent.iterdir()} == {"sae", "new"}


def test_nothing_is_written_where_it_cannot_be_whole(model, folder, monkeypatch):
    with pytest.raises(InputError, match="is there already"):
        model.save_folder(folder)
    with pytest.raises(InputError, match="does not exist"):
        model.save_folder(folder / "no" / "where")
    with pytest.raises(InputError, match="n_anchors"):
        model.save_folder(folder.parent / "new", n_anchors=1)
    monkeypatch.setattr(rs.SAEManifold, "save", lambda self, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_folder(folder.parent / "new")
    assert [item.name for item in folder.parent.iterdir()] == ["sae"]


def test_curves_on_the_scale_of_a_link_are_no_directions(tmp_path):
    counts = np.random.default_rng(0).poisson(3.0, (40, 3)).astype(float)
    fit = rs.SAEManifold(n_atoms=1, topology="linear", family="poisson", n_init=1, max_outer=3)
    with pytest.raises(InputError, match="scale of a link"):
        fit.fit(counts).save_folder(tmp_path / "sae")


def test_export(folder, model, capsys):
    model.save(folder.parent / "fit.safetensors")
    assert main(["export", str(folder.parent), "-o", str(folder.parent / "out"),
                 "--anchors", "5"]) == 0
    assert len(matching_pursuit_sae(folder.parent / "out")[2]) == 5 + 2
    assert main(["export", str(folder.parent), "-o", str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err
