"""The command line: reml-sae demo | fit | encode | report | compare | penalties."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import sys
import time
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import reml_sae as rs
from reml_sae import datasets
from reml_sae import penalties as pen
from reml_sae.diagnostics import (
    align_angles,
    circular_correlation,
    plot_atoms,
    write_html,
)
from reml_sae.errors import InputError, MissingDependencyError, RemlSaeError, require
from reml_sae.io import check_same_rows, matrix_digest, read_matrix, write_bytes_atomically
from reml_sae.penalties._schema import describe, listing, schema

FIT_FILE, REPORT_FILE, SUMMARY_FILE, CODES_FILE = (
    "fit.safetensors", "report.html", "summary.txt", "codes.npz")
OPTIONS = tuple(inspect.signature(rs.SAEManifold).parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for input that cannot be used."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            options.run(options)
    except RemlSaeError as error:
        print(f"reml-sae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reml-sae: interrupted before there was anything to keep", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Any, category: Any, *rest: Any) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reml-sae", description=rs.__doc__)
    parser.add_argument("--version", action="version", version=f"reml-sae {rs.__version__}")
    parser.add_argument("--verbose", action="store_true", help="log one line an outer iteration")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="fit the bundled calendar data and show the summary")
    demo.set_defaults(run=_demo)

    fit = commands.add_parser("fit", help="fit a matrix and write the artifact and a report")
    fit.add_argument("data", help="file.npy, file.safetensors or file.safetensors::TENSOR")
    fit.add_argument("-k", "--n-atoms", type=_count_or_auto, help="number of atoms, or auto")
    fit.add_argument("--topology", nargs="+",
                     help="one name for all atoms, K names, or auto")
    fit.add_argument("--assignment", help="softmax, topk, ordered_beta_bernoulli, threshold_gate")
    fit.add_argument("--n-active", type=int, help="atoms that a row uses, under gates")
    fit.add_argument("--curvature", choices=("majorizer", "exact"))
    fit.add_argument("--integration", choices=("auto", "laplace", "quadrature"))
    fit.add_argument("--max-outer", type=int)
    fit.add_argument("--max-time", type=float, help="seconds; the best state by then is kept")
    fit.add_argument("--tol", type=float)
    fit.add_argument("--n-init", type=int)
    fit.add_argument("--seed", type=int, dest="random_state")
    fit.add_argument("--config", help="TOML or JSON file with the arguments of SAEManifold")
    fit.add_argument("-o", "--out", required=True, help="folder; it is made")
    fit.set_defaults(run=_fit)

    encode = commands.add_parser("encode", help="write the codes of rows under a fitted model")
    encode.add_argument("folder", help="folder that fit wrote")
    encode.add_argument("data")
    encode.add_argument("-o", "--out", required=True, help="file.npz to write")
    encode.set_defaults(run=_encode)

    report = commands.add_parser("report", help="print the summary and write the HTML report")
    report.add_argument("folder")
    report.add_argument("--data", help="the rows of the fit, for the figure of the atoms")
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="compare fits of the same rows by V")
    compare.add_argument("folders", nargs="+")
    compare.set_defaults(run=_compare)

    penalties = commands.add_parser("penalties", help="list the penalty kinds, or describe one")
    penalties.add_argument("kind", nargs="?")
    penalties.add_argument("--json", action="store_true", help="print the schema as JSON")
    penalties.set_defaults(run=_penalties)
    return parser


def _count_or_auto(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _demo(options: argparse.Namespace) -> None:
    data = datasets.load_weekdays()
    print(f"Fitting one circle to {data.description}:\n{len(data.Z)} rows of 7 weekdays in 20 "
          "sentences, each sentence's mean taken out.\n")
    begun = time.perf_counter()
    circle = rs.manifolds.Circle(n_harmonics=1)
    model = rs.SAEManifold(n_atoms=1, topology=circle, verbose=1).fit(data.Z)
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


def _fit(options: argparse.Namespace) -> None:
    arguments: dict[str, Any] = _config(options.config) if options.config else {}
    for name in ("n_atoms", "assignment", "n_active", "curvature", "integration", "max_outer",
                 "max_time", "tol", "n_init", "random_state"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    if options.topology:
        arguments["topology"] = (options.topology[0] if len(options.topology) == 1
                                 else options.topology)
    Z = read_matrix(options.data, "data")
    model = rs.SAEManifold(**{"verbose": 1, **arguments}).fit(Z)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / FIT_FILE)
    _write_report(model, folder, Z)
    print(model.summary())
    print(f"\nwrote {folder / FIT_FILE}, {SUMMARY_FILE} and {REPORT_FILE}")


def _config(name: str) -> dict[str, Any]:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--config={name!r}: there is no such file")
    try:
        values = (tomllib.loads if path.suffix == ".toml" else json.loads)(path.read_text())
    except ValueError as error:
        raise InputError(f"--config={name!r} cannot be read: {error}") from error
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise InputError(f"--config={name!r}: unknown name {unknown[0]!r}; allowed: "
                         f"{', '.join(OPTIONS)}")
    return dict(values)


def _encode(options: argparse.Namespace) -> None:
    model = _load(options.folder)
    codes = model.transform(read_matrix(options.data, "data"))
    arrays = {"assignments": codes.assignments, "gates": codes.gates,
              "objective": codes.objective, "converged": codes.converged}
    arrays.update({f"coordinates_{k}": t for k, t in enumerate(codes.coordinates)})
    path = Path(options.out)
    if path.suffix != ".npz":
        raise InputError(f"--out={options.out!r} must end in .npz")
    _write_npz(path, arrays)
    print(f"wrote the codes of {len(codes)} rows to {path}")


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes_atomically(path, buffer.getvalue())


def _report(options: argparse.Namespace) -> None:
    model = _load(options.folder)
    Z = read_matrix(options.data, "--data") if options.data else None
    if Z is not None:
        check_same_rows({options.folder: model.data_digest_,
                         f"--data={options.data}": matrix_digest(Z)})
    print(model.summary())
    print()
    print(model.diagnostics_.summary())
    _write_report(model, Path(options.folder), Z)
    print(f"\nwrote {Path(options.folder) / REPORT_FILE}")


def _write_report(model: rs.SAEManifold, folder: Path, Z: Any) -> None:
    try:
        figures = _figures(model, Z)
    except MissingDependencyError as error:
        figures = []
        print(f"the report has no figures: {error}", file=sys.stderr)
    text = model.summary()
    write_bytes_atomically(folder / SUMMARY_FILE, (text + "\n").encode())
    write_html(folder / REPORT_FILE, "SAE-manifold fit", text, model.diagnostics_, figures)


def _figures(model: rs.SAEManifold, Z: Any) -> list[Any]:
    """Figures of a report; not of pyplot, which would keep those of every report of a process."""
    new = require("matplotlib.figure", "plot", "a figure").Figure
    figures = [model.trace_.plot(new(figsize=(10, 3.6), layout="constrained").subplots(1, 2))]
    if Z is not None:
        figures.append(plot_atoms(model, Z, figure=new(layout="constrained")))
    return figures


def _compare(options: argparse.Namespace) -> None:
    models = {name: _load(name) for name in options.folders}
    check_same_rows({name: model.data_digest_ for name, model in models.items()})
    best = min(model.criterion_ for model in models.values())
    print(f"{'fit':<32}{'atoms':>6}{'V':>18}{'above best':>14}{'edf':>10}  status")
    for name, model in sorted(models.items(), key=lambda item: item[1].criterion_):
        print(f"{name:<32}{len(model.atoms_):>6}{model.criterion_:>18.3f}"
              f"{model.criterion_ - best:>14.3f}{model.edf_:>10.1f}  "
              f"{'converged' if model.converged_ else model.message_}")


def _penalties(options: argparse.Namespace) -> None:
    kinds = [options.kind] if options.kind else pen.registered_kinds()
    if options.json:
        schemas = [schema(kind) for kind in kinds]
        print(json.dumps(schemas[0] if options.kind else schemas, indent=2))
    elif options.kind:
        print(describe(options.kind))
    else:
        print("\n".join(listing(kind) for kind in kinds))


def _load(folder: str) -> rs.SAEManifold:
    path = Path(folder)
    return rs.load(path / FIT_FILE if path.is_dir() else path)


if __name__ == "__main__":
    sys.exit(main())
