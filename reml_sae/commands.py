"""What the commands of the command line do; `reml_sae.cli` reads their options."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

import reml_sae as rs
from reml_sae import datasets
from reml_sae import penalties as pen
from reml_sae.diagnostics import align_angles, circular_correlation, shows_rows
from reml_sae.discovery.journal import remove_checkpoint
from reml_sae.engine import OuterStatus
from reml_sae.errors import InputError, require
from reml_sae.estimators import FIT_FILE, TABLES, check_suffix
from reml_sae.exit_status import ExitStatus
from reml_sae.io import (
    RowSource,
    check_folder,
    check_same_rows,
    check_writable,
    open_rows,
    write_bytes_atomically,
)
from reml_sae.penalties._schema import describe, listing, schema

REPORT_FILE, SUMMARY_FILE = "report.html", "summary.txt"
CHECKPOINT = "checkpoint"
"""Folder in that of a fit, while it is made."""
STOPPED = (OuterStatus.INTERRUPTED.value, OuterStatus.OUT_OF_TIME.value)
"""How messages of fits begin that go on from their checkpoints."""
OPTIONS = tuple(inspect.signature(rs.SAEManifold).parameters)


def demo(options: argparse.Namespace) -> None:
    """Fit the bundled calendar data and show where the weekdays sit."""
    if options.out is not None:
        check_folder(options.out, "--out")
        _refuse_fit(Path(options.out) / FIT_FILE)
    data = datasets.load_weekdays()
    print(f"Fitting one circle to {data.description}:\n{len(data.Z)} rows of 7 weekdays in 20 "
          "sentences, each sentence's mean taken out, by\n"
          "    reml_sae.SAEManifold(n_atoms=1).fit(reml_sae.datasets.load_weekdays().Z)\n")
    begun = time.perf_counter()
    model = rs.SAEManifold(n_atoms=1, verbose=1).fit(data.Z)
    seconds = time.perf_counter() - begun
    print(model.summary())
    angles = align_angles(model.codes_.coordinates[0][:, 0], data.phase)
    means = np.array([np.angle(np.exp(1j * angles[data.labels == day]).mean())
                      for day in range(7)])
    print("\nWhere the weekdays sit on the circle:")
    for name, angle in zip(datasets.WEEKDAYS, np.degrees(means) % 360.0, strict=True):
        print(f"  {name:<10} {angle:6.1f} degrees  {' ' * round(angle / 8.0)}*")
    truth = 2.0 * np.pi * np.arange(7.0) / 7.0
    print(f"circular correlation with the calendar: {circular_correlation(means, truth):.3f}"
          f"   ({seconds:.1f} s)")
    if options.out is not None:
        folder = _save(model, Path(options.out))
        names = [datasets.WEEKDAYS[day] for day in data.labels]
        _write_report(model, folder, open_rows(data.Z, "data"), names, "weekdays")
        print(f"\nwrote {folder / FIT_FILE}, {SUMMARY_FILE} and {REPORT_FILE}")


def fit(options: argparse.Namespace) -> int:
    """Fit a matrix and write the artifact, the summary and a report; returns the exit status."""
    arguments: dict[str, Any] = _config(options.config) if options.config else {}
    for name in ("n_atoms", "assignment", "n_active", "curvature", "integration", "noise",
                 "row_noise", "max_outer", "max_time", "tol", "n_init", "random_state", "solver",
                 "device"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    if options.noise_per_atom:
        given = arguments.get("noise", "isotropic")
        own = given if isinstance(given, dict) else {"kind": given}
        arguments["noise"] = {**own, "per_atom": True}
    if options.topology:
        arguments["topology"] = (options.topology[0] if len(options.topology) == 1
                                 else options.topology)
    check_folder(options.out, "--out")
    checkpoint = _checkpoint(options)
    source = open_rows(options.data, "data")
    labels = _labels(options.labels, source.shape[0])
    verbose = 0 if options.quiet else 1
    model = rs.SAEManifold(**{"verbose": verbose, "checkpoint": checkpoint, **arguments}).fit(
        source)
    if _is_worse(model, Path(options.out) / FIT_FILE):
        print(f"reml-sae: the fit in {options.out} is no worse than what was stopped, and is kept; "
              "--resume goes on", file=sys.stderr)
        return _status(model)
    folder = _save(model, Path(options.out))
    # not before it is saved; a fit that was stopped goes on from it
    if not model.message_.startswith(STOPPED):
        remove_checkpoint(checkpoint)
    try:
        _write_report(model, folder, source, labels, options.data)
    except KeyboardInterrupt:
        print(f"reml-sae: interrupted; the fit is in {folder / FIT_FILE}", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    print(model.summary())
    print(f"\nwrote {folder / FIT_FILE}, {SUMMARY_FILE} and {REPORT_FILE}")
    return _status(model)


def _checkpoint(options: argparse.Namespace) -> Path:
    """Where a fit is kept while it is made, in a folder that holds none unless that may go."""
    checkpoint, there = Path(options.out) / CHECKPOINT, Path(options.out) / FIT_FILE
    if options.overwrite:
        remove_checkpoint(checkpoint)
    elif checkpoint.exists() and not options.resume:
        raise InputError(f"{str(checkpoint)!r} is of a fit that was stopped; add --resume to go on "
                         "with it, or --overwrite to begin anew")
    elif not checkpoint.exists():
        _refuse_fit(there, ", or add --overwrite to replace it")
    return checkpoint


def _refuse_fit(path: Path, otherwise: str = "") -> None:
    if path.exists():
        raise InputError(f"{str(path)!r} is a fit that is done; name another folder"
                         f"{otherwise}")


def _is_worse(model: rs.SAEManifold, path: Path) -> bool:
    """Whether a fit was stopped where a file has one that V does not say is worse."""
    if not model.message_.startswith(STOPPED) or not path.is_file():
        return False
    try:
        there = rs.load(path)
    except InputError:
        return False
    return there.data_digest_ != model.data_digest_ or there.criterion_ <= model.criterion_


def _status(model: rs.SAEManifold) -> ExitStatus:
    if model.converged_:
        return ExitStatus.DONE
    by_user = model.message_.startswith(OuterStatus.INTERRUPTED.value)
    return ExitStatus.INTERRUPTED if by_user else ExitStatus.NOT_CONVERGED


def _save(model: rs.SAEManifold, folder: Path) -> Path:
    """Save a fit to a folder, or to a temporary one where that one cannot take it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / FIT_FILE)
        return folder
    except (InputError, OSError) as error:
        kept = Path(tempfile.mkdtemp(prefix="reml-sae-"))
        model.save(kept / FIT_FILE)
        print(f"reml-sae: {error}. The fit was kept in {kept}", file=sys.stderr)
        return kept


def _config(name: str) -> dict[str, Any]:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--config={name!r}: there is no such file")
    try:
        values = (tomllib.loads if path.suffix == ".toml" else json.loads)(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--config={name!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"--config={name!r} must hold an object of names and values, got "
                         f"{type(values).__name__}")
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise InputError(f"--config={name!r}: unknown name {unknown[0]!r}; allowed: "
                         f"{', '.join(OPTIONS)}")
    return dict(values)


def encode(options: argparse.Namespace) -> None:
    """Write the codes of rows under a fitted model."""
    if check_suffix(options.out, "--out") in TABLES:
        require("pandas", "frames", f"--out={options.out!r}")
    check_writable(options.out, "--out")
    model = rs.load(options.folder).set_params(executor=options.executor)
    codes = model.encode(open_rows(options.data, "data"))
    codes.save(options.out)
    print(f"wrote the codes of {len(codes)} rows to {options.out}")


def report(options: argparse.Namespace) -> None:
    """Print the summary and the checks, and write the HTML report."""
    model = rs.load(options.folder)
    Z = open_rows(options.data, "--data") if options.data else None
    if Z is not None:
        check_same_rows({options.folder: model.data_digest_})
    labels = _labels(options.labels, len(model.codes_))
    print(model.summary())
    print()
    print(model.diagnostics_.summary())
    path = Path(options.folder) / REPORT_FILE
    if Z is None and not options.force and shows_rows(path):
        print(f"\nkept {path}, which shows rows of the data and would not without --data; give "
              "them, or --force", file=sys.stderr)
        return
    _write_report(model, Path(options.folder), Z, labels, options.data or "")
    print(f"\nwrote {path}")


def _labels(name: str | None, n_rows: int) -> list[str] | None:
    """Texts of the rows, one a line of a file."""
    if name is None:
        return None
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--labels={name!r}: there is no such file")
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"--labels={name!r} is not UTF-8 text: {error}") from error
    if len(labels) != n_rows:
        raise InputError(f"--labels={name!r} has {len(labels)} lines, the data have {n_rows} rows; "
                         "write one line a row")
    return labels


def _write_report(
    model: rs.SAEManifold, folder: Path, Z: RowSource | None, labels: list[str] | None, source: str
) -> None:
    """Write the summary and the report of a fit."""
    write_bytes_atomically(folder / SUMMARY_FILE, (model.summary() + "\n").encode())
    model.report(folder / REPORT_FILE, Z, labels, source=source, force=True)


def compare(options: argparse.Namespace) -> None:
    """Print fits of the same rows in the order of V."""
    models = {name: rs.load(name) for name in options.folders}
    check_same_rows({name: model.data_digest_ for name, model in models.items()})
    best = min(model.criterion_ for model in models.values())
    print(f"{'fit':<32}{'atoms':>6}{'V':>18}{'above best':>14}{'edf':>10}  status")
    for name, model in sorted(models.items(), key=lambda item: item[1].criterion_):
        print(f"{name:<32}{len(model.atoms_):>6}{model.criterion_:>18.3f}"
              f"{model.criterion_ - best:>14.3f}{model.edf_:>10.1f}  "
              f"{'converged' if model.converged_ else model.message_}")


def export(options: argparse.Namespace) -> None:
    """Write a fit as a folder that readers of plain sparse autoencoders take."""
    rs.load(options.folder).save_folder(options.out, options.anchors)
    print(f"wrote {options.out}")


def penalties(options: argparse.Namespace) -> None:
    """List the penalty kinds, or describe one."""
    kinds = [options.kind] if options.kind else pen.registered_kinds()
    if options.json:
        schemas = [schema(kind) for kind in kinds]
        print(json.dumps(schemas[0] if options.kind else schemas, indent=2))
    elif options.kind:
        print(describe(options.kind))
    else:
        print("\n".join(listing(kind) for kind in kinds))


COMMANDS = {"demo": demo, "fit": fit, "encode": encode, "report": report, "export": export,
            "compare": compare, "penalties": penalties}
