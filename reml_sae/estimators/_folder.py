"""A fit as a folder that readers of plain sparse autoencoders take, and back.

Beside the fit itself, `fit.safetensors`, there are `cfg.json` and `sae_weights.safetensors` in the
layout of SAELens' "matching_pursuit" SAE: b_dec, and W_dec (d_sae, d_in) with a unit vector for
every anchor, a point of a curve less the mean. Such an SAE has no encoder of its own. Its features
are found one after the other, each the direction with the largest projection of what is left of the
row, and their activations are these projections: at an anchor the distance of the curve from the
mean there. As many are taken as a row uses atoms; where it may use fewer, until no more is left
than noise. The code of a row is then a rounding to anchors of what `SAEManifold.encode` says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from reml_sae._version import __version__
from reml_sae.errors import ArtifactError, InputError
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.io import new_folder
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array

FIT_FILE, CONFIG_FILE, WEIGHTS_FILE = "fit.safetensors", "cfg.json", "sae_weights.safetensors"
OWN = "reml_sae"
"""Key of cfg.json under which stands what the other reader does not know."""
FINER = 8
"""Points of a curve for every anchor, where it is asked how far anchors are from it."""
MOST_ANCHORS = 1000
"""Anchors of a curve; more say nothing, and what is written grows with them."""


def write_folder(
    path: str | os.PathLike[str], fitted: FittedSAE, n_anchors: int,
    write_fit: Callable[[Path], None],
) -> None:
    """Write a fit as a folder, which appears whole or not at all.

    Raises
    ------
    InputError
        Where the fit is not Gaussian, the folder is there already, or that above it is not.
    """
    if not fitted.family.has_dispersion:
        raise InputError(f"family={fitted.family.name!r}: its curves are on the scale of a link, "
                         "and are no directions of the data; save() keeps the fit")
    if n_anchors > MOST_ANCHORS:
        raise InputError(f"n_anchors={n_anchors} directions for every curve: at most "
                         f"{MOST_ANCHORS} are written")
    weights, features = sae_weights(fitted, n_anchors)
    config = {
        **sae_config(fitted, n_anchors), "dtype": "float32", "device": "cpu",
        "metadata": {"model_name": None, "hook_name": None},
        OWN: {"version": __version__, "n_anchors": n_anchors, "features": features},
    }
    with new_folder(path) as folder:
        write_fit(folder / FIT_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1))
        (folder / WEIGHTS_FILE).write_bytes(save(weights))


def fit_file(path: str | os.PathLike[str]) -> Path:
    """The file of a fit: the path, or that in the folder at the path."""
    place = Path(path)
    if place.is_dir() and not (place / FIT_FILE).is_file():
        raise ArtifactError(f"path={os.fspath(path)!r} has no {FIT_FILE}: it is no folder of "
                            "reml_sae, or it is incomplete")
    return place / FIT_FILE if place.is_dir() else place


def check_export(path: str | os.PathLike[str], fitted: FittedSAE) -> None:
    """Refuse a folder whose files are not of one fit; one with the fit alone is right.

    Raises
    ------
    ArtifactError
        Naming the file, the entry, and what is wrong with it.
    """
    folder = Path(path)
    config_file, weights_file = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not config_file.exists() and not weights_file.exists():
        return
    config = _read_config(config_file)
    try:
        found = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{weights_file} cannot be read ({error}); export the fit again"
                            ) from error
    wanted, _ = sae_weights(fitted, config[OWN]["n_anchors"])
    for name, value in sae_config(fitted, config[OWN]["n_anchors"]).items():
        if config.get(name) != value:
            raise ArtifactError(f"{config_file}: {name} is {config.get(name)!r}, that of "
                                f"{FIT_FILE} is {value!r}; export the fit again")
    for name, value in wanted.items():
        if name not in found:
            raise ArtifactError(f"{weights_file} has no tensor {name!r}; export the fit again")
        if found[name].shape != value.shape or not np.allclose(found[name], value, rtol=1e-4):
            raise ArtifactError(f"{weights_file}: {name} is not that of {FIT_FILE}; the files are "
                                "of different fits, or one was changed. Export the fit again")


def sae_config(fitted: FittedSAE, n_anchors: int) -> dict[str, Any]:
    """What the other reader takes from ``cfg.json``, all but what the user fills in."""
    gate = fitted.assignment
    n_features = sum(len(_anchors(atom.topology, n_anchors)) for atom in fitted.atoms)
    fixed = gate.is_mixture or gate.least_active == gate.most_active
    return {
        "architecture": "matching_pursuit", "d_in": len(fitted.units.mean), "d_sae": n_features,
        "max_iterations": 1 if gate.is_mixture else gate.most_active,
        "stop_on_duplicate_support": True,
        "residual_threshold": 0.0 if fixed else _left_by_one(fitted, n_anchors),
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none"}


def _left_by_one(fitted: FittedSAE, n_anchors: int) -> float:
    """Length of what noise and the rounding to an anchor leave of a row of one atom, at most."""
    p, square = len(fitted.units.mean), 0.0
    for atom in fitted.atoms:
        fine, coarse = (atom.topology.basis(_anchors(atom.topology, n)) @ atom.coefficients
                        for n in (FINER * n_anchors, n_anchors))
        units = coarse / np.maximum(np.linalg.norm(coarse, axis=1), np.finfo(float).tiny)[:, None]
        across = (fine**2).sum(axis=1) - np.maximum(fine @ units.T, 0.0).max(axis=1) ** 2
        square = max(square, float(across.max()))
    return float(np.sqrt(p * fitted.dispersion + square))


def sae_weights(
    fitted: FittedSAE, n_anchors: int
) -> tuple[dict[str, NDArray[np.float32]], list[dict[str, Any]]]:
    """The two tensors; and of every feature its atom, its coordinates and how far it is."""
    # on the simplex the atoms hold the mean, under gates they are relative to the intercept
    mean = fitted.units.mean if fitted.assignment.is_mixture else np.zeros(len(fitted.intercept))
    directions, features = [], []
    for k, atom in enumerate(fitted.atoms):
        t = _anchors(atom.topology, n_anchors)
        points = atom.topology.basis(t) @ atom.coefficients - mean
        lengths = np.linalg.norm(points, axis=1)
        directions.append(points / np.maximum(lengths, np.finfo(float).tiny)[:, None])
        features += [{"atom": k, "topology": atom.topology.label, "coordinates": place,
                      "length": length}
                     for place, length in zip(t.tolist(), lengths.tolist(), strict=True)]
    tensors = {"W_dec": np.concatenate(directions), "b_dec": fitted.intercept + mean}
    return ({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()},
            features)


def _anchors(shape: Manifold, n: int) -> Array:
    """Coordinates (m, d) at which an atom becomes directions: one sd to either side of a flat."""
    if not shape.latent_dim:
        return np.zeros((1, 0))
    if shape.is_flat:
        return np.concatenate([np.eye(shape.latent_dim), -np.eye(shape.latent_dim)])
    return shape.grid(n)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); export the fit again") from error
    own = config.get(OWN) if isinstance(config, dict) else None
    anchors = own.get("n_anchors") if isinstance(own, dict) else None
    if not isinstance(anchors, int) or not 2 <= anchors <= MOST_ANCHORS:
        raise ArtifactError(f"{path}: {OWN}.n_anchors is {anchors!r}, and must be the integer that "
                            "the folder was written with; export the fit again")
    return dict(config)
