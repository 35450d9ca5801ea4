"""A progress line on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from reml_sae.engine import TraceRow


@contextmanager
def progress_callback(
    verbose: int, max_outer: int
) -> Iterator[Callable[[TraceRow], None] | None]:
    """Callback that moves a progress bar; None where it is not wanted or no terminal is there."""
    if not verbose or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("[bold]REML"), BarColumn(),
               TextColumn("{task.completed:.0f} outer iterations  {task.description}"),
               TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("finding starts", total=max_outer)

        def show(row: TraceRow) -> None:
            slope = f"  |gradient| = {row.gradient_norm:.2g}" if row.gradient_norm >= 0.0 else ""
            bar.update(task, completed=row.iteration + 1, total=max(max_outer, row.iteration + 1),
                       description=f"{row.stage}  V = {row.criterion:.4f}{slope}")

        yield show
