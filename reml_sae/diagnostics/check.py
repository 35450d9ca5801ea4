"""One named check of a fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
    status : {"pass", "warn", "fail"}
    figure : float
    message : str
    rows : tuple of int
        Rows that it is about, the worst first.
    """

    name: str
    status: str
    figure: float
    message: str
    rows: tuple[int, ...] = ()
