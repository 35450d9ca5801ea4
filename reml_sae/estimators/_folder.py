"""A fit as a folder that readers of plain sparse autoencoders take, and back.

Beside the fit itself, `fit.safetensors`, there are `cfg.json` and `sae_weights.safetensors` in the
layout of SAELens' "standard" SAE, W_dec (d_sae, d_in), W_enc (d_in, d_sae), b_enc and b_dec, whose
features are points d_j of the curves at anchors, less the mean. With h = D (D'D + phi I)^-1 D' over
the anchors D of an atom, its feature j is

    relu((h(x, j) / h_jj - c_j) / (1 - c_j)),   c_j = max_{i != j} h_ij / h_jj, at most `SHADOWED`,

1 at its own anchor and 0 at the others of its atom unless one of them shadows it. The directions
are those of the fit; the encoder is the nearest that such a reader has, and no substitute for
`SAEManifold.encode`.
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
SHADOWED = 0.95
"""Bound of c_j, beyond which the slope of a feature would grow without end."""
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
    d_sae, d_in = weights["W_dec"].shape
    config = {
        "architecture": "standard", "d_in": d_in, "d_sae": d_sae, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none", "metadata": {"model_name": None, "hook_name": None},
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
    d_sae, d_in = wanted["W_dec"].shape
    for name, value in (("architecture", "standard"), ("d_in", d_in), ("d_sae", d_sae)):
        if config.get(name) != value:
            raise ArtifactError(f"{config_file}: {name} is {config.get(name)!r}, that of "
                                f"{FIT_FILE} is {value!r}; export the fit again")
    for name, value in wanted.items():
        if name not in found:
            raise ArtifactError(f"{weights_file} has no tensor {name!r}; export the fit again")
        if found[name].shape != value.shape or not np.allclose(found[name], value, rtol=1e-4):
            raise ArtifactError(f"{weights_file}: {name} is not that of {FIT_FILE}; the files are "
                                "of different fits, or one was changed. Export the fit again")


def sae_weights(
    fitted: FittedSAE, n_anchors: int
) -> tuple[dict[str, NDArray[np.float32]], list[dict[str, Any]]]:
    """The four tensors, and the atom and coordinates of every feature."""
    # on the simplex the atoms hold the mean, under gates they are relative to the intercept
    mean = fitted.units.mean if fitted.assignment.is_mixture else np.zeros(len(fitted.intercept))
    decoders, encoders, biases, features = [], [], [], []
    for k, atom in enumerate(fitted.atoms):
        t = _anchors(atom.topology, n_anchors)
        directions = atom.topology.basis(t) @ atom.coefficients - mean
        encoder, bias = _encoder(directions, fitted.dispersion)
        decoders.append(directions)
        encoders.append(encoder)
        biases.append(bias)
        features += [{"atom": k, "topology": atom.topology.label, "coordinates": place}
                     for place in t.tolist()]
    tensors = {"W_dec": np.concatenate(decoders), "W_enc": np.concatenate(encoders, axis=1),
               "b_enc": np.concatenate(biases), "b_dec": fitted.intercept + mean}
    return ({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()},
            features)


def _anchors(shape: Manifold, n: int) -> Array:
    """Coordinates (m, d) at which an atom becomes directions: one sd to either side of a flat."""
    if not shape.latent_dim:
        return np.zeros((1, 0))
    if shape.is_flat:
        return np.concatenate([np.eye(shape.latent_dim), -np.eye(shape.latent_dim)])
    return shape.grid(n)


def _encoder(directions: Array, dispersion: float) -> tuple[Array, Array]:
    """Columns (p, m) and biases (m,) of the features of one atom."""
    u, sizes, vt = np.linalg.svd(directions, full_matrices=False)
    squares = sizes**2
    kept = squares > np.finfo(float).eps * squares.max(initial=0.0)
    u, sizes, vt, squares = u[:, kept], sizes[kept], vt[kept], squares[kept]
    columns = (vt.T * (sizes / (squares + dispersion))) @ u.T
    cosines = (u * (squares / (squares + dispersion))) @ u.T
    own = cosines.diagonal().copy()
    idle = own <= np.finfo(float).eps  # a direction of length zero
    relative = cosines / np.where(idle, 1.0, own)
    np.fill_diagonal(relative, 0.0)
    threshold = np.clip(relative.max(axis=0, initial=0.0), 0.0, SHADOWED)
    slope = np.where(idle, 0.0, 1.0 / (np.where(idle, 1.0, own) * (1.0 - threshold)))
    return columns * slope, np.where(idle, 0.0, -threshold / (1.0 - threshold))


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
