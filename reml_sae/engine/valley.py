"""Whether an optimum of V is one: no strength that V does not see, and no flat valley.

At an optimum the Hessian of V is positive definite. Where it has a null direction, a Fisher matrix
of the outer parameters has one: they are not identified, and the optimum is one of many. A single
parameter with no curvature is at a limit, if V stays as low up to one end of its box, and is not
identified, if it does so up to both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reml_sae.engine.loop import Loop, logger
from reml_sae.engine.quasi_newton import limits
from reml_sae.engine.status import NEGLIGIBLE
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.typing import Array

DIFFERENCE = 1e-3
FLAT_CURVATURE = 1e-3
"""Curvature of V in a log strength below which it is flat: half as many nats for a factor of e."""
SINGULAR = 1e-3
"""Eigenvalue of the Hessian with unit diagonal below which its direction is a valley.

What is left of the gradient bends a valley's own by up to 1e-4; fits of sound models have 1e-2 and
more.
"""
LEAST_STEP = 1e-3
"""A parameter whose steps are shorter belongs to a variance at its limit."""
TAKES_PART = 0.1
"""Entries of a null direction, of unit length, that name a parameter."""


@dataclass(frozen=True)
class Flatness:
    """What V is flat in at an optimum.

    Attributes
    ----------
    limits : tuple of (name, str)
        Strengths that ran to a limit.
    undetermined : tuple of tuples of str
        Parameters that V does not see, alone or in a combination.
    failure : str
        Why there is no answer; empty where there is one.
    """

    limits: tuple[tuple[str, str], ...]
    undetermined: tuple[tuple[str, ...], ...] = ()
    failure: str = ""

    @property
    def message(self) -> str:
        """What is undetermined, as a sentence; empty where nothing is."""
        if self.failure:
            return f"the curvature of V at the end of the search is not known: {self.failure}"
        alone = [names[0] for names in self.undetermined if len(names) == 1]
        parts = [f"V does not depend on {', '.join(alone)}"] if alone else []
        parts += [f"V is flat along a combination of {', '.join(names)}, which the data cannot "
                  "tell apart" for names in self.undetermined if len(names) > 1]
        if not parts:
            return ""
        return f"{'; '.join(parts)}: leave a term out, or fix its strength"


def flatness(loop: Loop) -> Flatness:
    """Look for null directions at the best point, by two gradients of V for each strength.

    Where V is lower at the end of a box, the best point moves there, and is no optimum.
    """
    names = loop.outer.names
    found = dict(limits(loop, loop.best_rho, loop.found))
    frame = loop.model.rho_frame(loop.theta, loop.best_rho)
    low, high = loop.outer.bounds[:, 0] + DIFFERENCE, loop.outer.bounds[:, 1] - DIFFERENCE
    inside = np.flatnonzero(
        np.isfinite(low) & np.isfinite(high) & (np.diagonal(frame) >= LEAST_STEP)
        & (low < loop.best_rho) & (loop.best_rho < high))
    free = np.array([j for j in inside if names[j] not in found], np.intp)
    try:
        hessian = _hessian(loop, frame, free)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        return Flatness(tuple(found.items()), failure=str(error))
    curved = np.diagonal(hessian) >= FLAT_CURVATURE
    undetermined: list[tuple[str, ...]] = []
    size = np.sqrt(np.diagonal(hessian)[curved])
    values, vectors = np.linalg.eigh(hessian[np.ix_(curved, curved)] / np.outer(size, size))
    for vector in vectors.T[values < SINGULAR]:
        part = free[curved][np.abs(vector) > TAKES_PART]
        undetermined.append(tuple(names[j] for j in part))
    for j in np.setdiff1d(inside, free[curved]):
        ends = _flat_ends(loop, int(j))
        if len(ends) == 2:
            undetermined.append((names[j],))
            found.pop(names[j], None)
        elif ends:
            found[names[j]] = ends[0]
    return Flatness(tuple(found.items()), tuple(undetermined))


def _hessian(loop: Loop, frame: Array, free: NDArray[np.intp]) -> Array:
    """Second derivatives of V among some parameters along the columns of the frame."""
    hessian = np.zeros((len(free), len(free)))
    for i, j in enumerate(free):
        sides = [loop.evaluate(loop.best_rho + step * frame[:, j], gradient=True).gradient
                 for step in (DIFFERENCE, -DIFFERENCE)]
        hessian[i] = (frame.T @ (sides[0] - sides[1]))[free] / (2.0 * DIFFERENCE)
    return 0.5 * (hessian + hessian.T)


def _flat_ends(loop: Loop, j: int) -> list[str]:
    """Ends of a parameter's box at which V is as low as at the best point."""
    level, rho, found = loop.found.value, loop.best_rho, []
    for name, end in zip(("zero", "infinite"), loop.outer.bounds[j], strict=True):
        trial = rho.copy()
        trial[j] = end
        try:
            value = loop.evaluate(trial, gradient=True)
        except (InnerConvergenceError, NotPositiveDefiniteError) as error:
            logger.debug("end of a box refused: %s", error)
            continue
        if value.inner.converged and value.value <= level + NEGLIGIBLE:
            found.append(name)
            if value.value < level - NEGLIGIBLE:
                loop.keep(trial, value)
    return found
