"""Penalties of every kind in a whole fit: converged, moved by their weights, encoded alike."""

import json
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.errors import InputError
from reml_sae.manifolds import Euclidean
from tests.models.sae.kinds import CARRIED, N, P
from tests.models.sae.test_kinds import level

RNG = np.random.default_rng(0)
ANGLES = np.linspace(-np.pi, np.pi, N, endpoint=False)
FRAME = np.linalg.qr(RNG.normal(size=(P, 2)))[0]
Z = np.column_stack([2.0 * np.cos(ANGLES), np.sin(ANGLES)]) @ FRAME.T
Z += 0.1 * RNG.normal(size=Z.shape)
PATH = np.repeat([-1.2, 0.3, 1.1, -0.4], 15)
STEPS = np.outer(PATH, FRAME[:, 0]) + 0.3 * np.random.default_rng(1).normal(size=(len(PATH), P))
TV = {"kind": "total_variation", "latent_dim": 1, "eps": 0.05}
single = pytest.mark.parametrize("kind", [kind for kind in CARRIED if len(kind.atoms) == 1],
                                 ids=lambda kind: kind.name)


def fit(kind, data=Z, **changes):
    penalties = [{**kind.config, **changes}, *kind.beside]
    return rs.SAEManifold(n_atoms=1, topology=list(kind.atoms), penalties=penalties,
                          noise="isotropic", n_init=1).fit(data)


@cache
def path():
    """The fit of the path with jumps."""
    return rs.SAEManifold(n_atoms=1, topology="linear", penalties=[TV]).fit(STEPS)


@single
def test_the_fit_converges_and_encodes_its_own_rows(kind):
    model = fit(kind)
    assert model.converged_, model.message_
    codes = model.encode(Z)
    if kind.atoms[0] == Euclidean(2, 1):  # on a bent atom a row may have a second, equal place
        for found, fitted in zip(codes.coordinates, model.codes_.coordinates, strict=True):
            np.testing.assert_allclose(found, fitted, atol=1e-6)
    learnable = kind.penalty().rho_count()
    assert sum(name.startswith(kind.config["kind"]) for name in model.rho_names_) == learnable


@pytest.mark.parametrize("name", ["ard", "sparsity-decoder", "total_variation-chain",
                                  "quadratic"])
def test_a_larger_weight_moves_the_fit(name):
    """One kind a target; every kind at given outer parameters is in tests/models/sae/test_kinds.py.
    """
    (kind,) = (kind for kind in CARRIED if kind.name == name)
    measure = kind.penalty(weight=1.0, learnable=False)
    levels = []
    for weight in (0.1, 5.0):
        model = fit(kind, weight=weight, learnable=False)
        arrow = model.build_model(Z)
        levels.append(level(arrow, arrow.initial_theta(), measure))
    assert levels[1] < levels[0]


def test_total_variation_recovers_a_path_with_jumps():
    """A strength chosen by REML beats the same fit without the penalty."""
    errors = {}
    for name, model in (("with", path()), ("without", rs.SAEManifold(
            n_atoms=1, topology="linear").fit(STEPS))):
        t = model.codes_.coordinates[0][:, 0]
        slope, shift = np.polyfit(t, PATH, 1)
        errors[name] = np.sqrt(np.mean((slope * t + shift - PATH) ** 2))
        assert model.converged_
    assert errors["with"] < 0.7 * errors["without"]


def test_the_summary_says_what_ran_and_what_was_held():
    model = rs.SAEManifold(n_atoms=1, topology="linear", noise="isotropic", penalties=[
        TV, {"kind": "monotonicity", "latent_dim": 1, "weight": 0.5}]).fit(STEPS)
    text = model.summary()
    backend = model.diagnostics_.figures["sparse backend"]
    assert backend in ("cholmod", "splu")
    assert f"sparse Cholesky by {backend}" in text
    assert "monotonicity.coordinates[0]" in text and "a potential without normaliser" in text
    assert "total_variation.coordinates[0]" in model.strengths_


def test_codes_of_new_rows_under_a_coupling_penalty():
    model = path()
    part = model.encode(STEPS[:30])  # a sequence of its own
    assert np.corrcoef(part.coordinates[0][:, 0], PATH[:30])[0, 1] > 0.98
    edges = [[i, i + 1] for i in range(len(PATH) - 1)]
    graph = {**TV, "difference": "graph_edges", "edges": edges}
    bound = rs.SAEManifold(n_atoms=1, topology="linear", penalties=[graph]).fit(STEPS)
    assert bound.criterion_ == pytest.approx(model.criterion_, abs=1e-4)
    with pytest.raises(InputError, match="values for 60 rows but the data have 30"):
        bound.encode(STEPS[:30])


def test_a_composite_is_its_parts():
    parts = [pen.ARDPenalty(latent_dim=2), pen.OrthogonalityPenalty(latent_dim=2, weight=2.0)]
    plane = Euclidean(2, 1)
    apart, together = (rs.SAEManifold(n_atoms=1, topology=plane, penalties=penalties,
                                      noise="isotropic").fit(Z)
                       for penalties in (parts, [parts[0] + parts[1]]))
    assert apart.criterion_ == together.criterion_
    assert apart.rho_names_ == together.rho_names_


def test_save_and_load(tmp_path):
    model = path()
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(again.encode(STEPS).coordinates[0],
                                  model.encode(STEPS).coordinates[0])
    assert again.summary() == model.summary()


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_configuration_file(tmp_path, suffix):
    from reml_sae.cli import main

    np.save(tmp_path / "z.npy", STEPS)
    config = {"n_atoms": 1, "topology": "linear", "penalties": [TV]}
    lines = ["n_atoms = 1", 'topology = "linear"', "[[penalties]]",
             *(f"{key} = {json.dumps(value)}" for key, value in TV.items())]
    file = tmp_path / f"config.{suffix}"
    file.write_text("\n".join(lines) if suffix == "toml" else json.dumps(config))
    out = tmp_path / "out"
    assert main(["fit", str(tmp_path / "z.npy"), "--config", str(file), "-o", str(out)]) == 0
    assert rs.load(out / "fit.safetensors").criterion_ == path().criterion_


def test_a_schedule_moves_the_weight_and_ends_at_its_end():
    schedule = {"kind": "linear", "w_start": 0.1, "w_end": 4.0, "steps": 3}
    config = {"kind": "orthogonality", "latent_dim": 2, "weight_schedule": schedule}
    plane = Euclidean(2, 1)
    model = rs.SAEManifold(
        n_atoms=1, topology=plane, penalties=[config], noise="isotropic", n_init=1).fit(Z)
    name = "orthogonality.coordinates[0]"
    weights = [row.weights[name] for row in model.trace_ if row.stage == "anneal"]
    np.testing.assert_allclose(weights[:4], [0.1, 1.4, 2.7, 4.0])
    fixed = rs.SAEManifold(n_atoms=1, topology=plane, noise="isotropic", n_init=1, penalties=[
        {"kind": "orthogonality", "latent_dim": 2, "weight": 4.0}]).fit(Z)
    assert model.criterion_ == pytest.approx(fixed.criterion_, abs=1e-5)
