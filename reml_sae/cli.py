"""The command line: reml-sae demo | fit | encode | report | export | compare | penalties.

Exit status: 0 done and converged, 2 input that cannot be used, 3 the fit did not converge (its best
state is written), 130 interrupted (the best state is written where there is one).
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import reml_sae as rs
from reml_sae.exit_status import ExitStatus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with _terminated_as_interrupted():
            status = _run(options)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # who read the output, such as `head`, has enough; Python flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except KeyboardInterrupt:
        print("reml-sae: interrupted before there was anything to keep", file=sys.stderr)
        return ExitStatus.INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    # the engine takes a second to import, which --help and --version need not wait for
    from reml_sae.commands import COMMANDS
    from reml_sae.errors import RemlSaeError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            with redirect_stdout(io.StringIO() if options.quiet else sys.stdout):
                return COMMANDS[options.command](options) or ExitStatus.DONE
    except RemlSaeError as error:
        print(f"reml-sae: {error}", file=sys.stderr)
        return ExitStatus.BAD_INPUT


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM, by which schedulers and `kill` end a process, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Any, category: Any, *rest: Any) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reml-sae", description=rs.__doc__)
    parser.add_argument("--version", action="version", version=f"reml-sae {rs.__version__}")
    # the two are heard before the command and after it
    parser.set_defaults(verbose=False, quiet=False)
    loudness = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for place in (parser, loudness):
        place.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS,
                           help="log one line an outer iteration")
        place.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS,
                           help="print warnings and errors alone")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")

    def command(name: str, help: str, **more: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[loudness], help=help, **more)

    demo = command("demo", "fit the bundled calendar data and show the summary")
    demo.add_argument("-o", "--out", help="folder for the fit and its report; it is made")

    fit = command("fit", "fit a matrix and write the artifact and a report",
                  epilog="exit status: 0 converged, 2 input that cannot be used, 3 not converged "
                  "(the best state is written), 130 interrupted")
    fit.add_argument("data", help="file.npy, file.safetensors, a folder or glob of shards, .zarr, "
                     ".arrow; PATH::NAME names a tensor or a column")
    fit.add_argument("-k", "--n-atoms", type=_count_or_auto,
                     help="number of atoms, or auto; 4 by default")
    fit.add_argument("--topology", nargs="+",
                     help="one name for all atoms, K names, or auto; V chooses the number of basis "
                     "functions, which --config can fix: topology = "
                     "{topology = \"circle\", n_harmonics = 3}")
    fit.add_argument("--assignment", help="softmax, topk, ordered_beta_bernoulli, threshold_gate")
    fit.add_argument("--n-active", type=int, help="atoms that a row uses, under gates")
    fit.add_argument("--curvature", choices=("majorizer", "exact"))
    fit.add_argument("--integration", choices=("auto", "laplace", "quadrature"))
    fit.add_argument("--noise", choices=("isotropic", "diagonal", "factor", "auto"),
                     help="covariance of the noise of a row; by default auto, the lowest V")
    fit.add_argument("--row-noise", choices=("gaussian", "student_t"),
                     help="scale of the noise of a row: of all, or its own")
    fit.add_argument("--noise-per-atom", action="store_true",
                     help="noise of its own for the rows of an atom, where V falls by it; for topk "
                     "with one active atom")
    fit.add_argument("--max-outer", type=int)
    fit.add_argument("--max-time", type=float, help="seconds; the best state by then is kept")
    fit.add_argument("--tol", type=float)
    fit.add_argument("--n-init", type=int)
    fit.add_argument("--seed", type=int, dest="random_state")
    fit.add_argument("--solver", choices=("auto", "search", "sweeps"),
                     help="sweeps: hundreds of circles of which each row uses one, in any number "
                     "of rows; by default where there are more than 32, or rows exceed the memory")
    fit.add_argument("--device", help="of sweeps: cpu, or a device of torch such as cuda")
    fit.add_argument("--config", help="TOML or JSON file with the arguments of SAEManifold")
    fit.add_argument("--labels", help="file with a text a line for every row, for the report")
    fit.add_argument("-o", "--out", required=True, help="folder; it is made")
    there = fit.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true",
                       help="go on with a fit to the same folder that was stopped or killed, after "
                       "the last REML fit that it completed, to the same result to the bit")
    there.add_argument("--overwrite", action="store_true",
                       help="replace the fit in the folder, or what is left of one that was "
                       "stopped; by default a folder that holds either is refused")

    encode = command("encode", "write the codes of rows under a fitted model")
    encode.add_argument("folder", help="folder that fit wrote")
    encode.add_argument("data", help="as of fit; read a chunk at a time")
    encode.add_argument("-o", "--out", required=True,
                        help="file to write: .npz, .safetensors, .csv or .parquet")
    where = encode.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, dest="executor", metavar="N",
                       help="worker processes on this machine")
    where.add_argument("--dask", dest="executor", metavar="ADDRESS",
                       help="scheduler of a dask cluster, whose workers see the same paths")

    report = command("report", "print the summary and write the HTML report")
    report.add_argument("folder")
    report.add_argument("--data", help="the rows of the fit, to be shown beside the curves")
    report.add_argument("--labels", help="file with a text a line for every row")
    report.add_argument("--force", action="store_true",
                        help="write without rows over a report that shows them")

    export = command("export", "write a fit as a folder with its curves as directions, in the "
                     "layout of SAELens")
    export.add_argument("folder", help="folder that fit wrote")
    export.add_argument("-o", "--out", required=True, help="folder to make")
    export.add_argument("--anchors", type=int, default=12, help="directions of a curved atom")

    compare = command("compare", "compare fits of the same rows by V")
    compare.add_argument("folders", nargs="+")

    penalties = command("penalties", "list the penalty kinds, or describe one")
    penalties.add_argument("kind", nargs="?")
    penalties.add_argument("--json", action="store_true", help="print the schema as JSON")
    return parser


def _count_or_auto(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of atoms, or auto, got {text!r}")
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    sys.exit(main())
