"""One named check of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]


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
    status: Status
    figure: float
    message: str
    rows: tuple[int, ...] = ()
