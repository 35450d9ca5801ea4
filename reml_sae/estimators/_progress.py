"""A progress line on a terminal: the clock, the stage of the search, V and its slope."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from reml_sae.discovery.stages import Stage, Stages
from reml_sae.engine import TraceRow


class _Line:
    """What the line says, renewed by every stage and every row of a trace."""

    def __init__(self, bar: Progress, task: TaskID):
        self._bar, self._task, self._stage, self._row = bar, task, "", ""
        self._fresh = False

    def enter(self, stage: Stage) -> None:
        self._stage, self._fresh = str(stage), True
        self._show(now=True)

    def add(self, row: TraceRow) -> None:
        slope = f", |gradient| {row.gradient_norm:.1g}" if row.gradient_norm >= 0.0 else ""
        self._row = f"V {row.criterion:.2f}{slope}, iteration {row.iteration + 1} ({row.stage})"
        # a stage shorter than the bar's own clock still shows a V of its own
        self._show(now=self._fresh)
        self._fresh = False

    def _show(self, now: bool) -> None:
        self._bar.update(self._task, description=f"{self._stage}  {self._row}", refresh=now)


@contextmanager
def progress(
    verbose: int,
) -> Iterator[tuple[Stages, tuple[Callable[[TraceRow], object], ...]]]:
    """Stages of a search and callbacks of its fits, which move a line on a terminal.

    Where it is not wanted or no terminal is there, both only write to the log. The clock stands
    first, so that a narrow terminal cuts the end of the line.
    """
    if not verbose or not sys.stderr.isatty():
        yield Stages(), ()
        return
    text = TextColumn("{task.description}", markup=False,
                      table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    with Progress(TimeElapsedColumn(), text, console=Console(stderr=True), transient=True,
                  expand=True) as bar:
        line = _Line(bar, bar.add_task("", total=None))
        yield Stages(line.enter), (line.add,)
