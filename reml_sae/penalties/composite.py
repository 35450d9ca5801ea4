"""Sums of penalties on one target.

    P = sum_j P_j,  rho = (rho_1, .., rho_J) in the order of the parts

The normaliser of a product of priors is not the product of theirs, and as a rule unknown: a sum is
proper only where it has one part, or where all parts are quadratic on one decoder,

    log int exp(-P) = p [(r / 2) log 2 pi - (1 / 2) log |sum_j lambda_j S_j|_+]

on the range of the sum, of dimension r; the determinant is that of `linalg.graded_sum`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from reml_sae.errors import InputError
from reml_sae.linalg import graded_sum
from reml_sae.penalties._base import Penalty, PenaltyTier
from reml_sae.penalties._registry import from_config, register
from reml_sae.penalties._schedule import ScalarWeightSchedule
from reml_sae.penalties.quadratic import DecoderQuadratic
from reml_sae.typing import Array


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class CompositePenalty(Penalty):
    """Sum of penalties on one target, as ``P + Q`` makes it.

    A model binds the parts one by one (`expand`) by its own rule: one proper prior for each
    target, and any number of potentials at a fixed weight. That a sum is improper therefore does
    not forbid learnable parts.

    Parameters
    ----------
    parts : list of Penalty or dict
        Penalties of one target, or their configurations; a sum among them gives its own parts.
    weight, weight_schedule, atom
        Not accepted: they belong to the parts.
    learnable : bool, optional
        Not asked: whether a part is.
    """

    parts: tuple[Penalty, ...]

    KIND_TAG: ClassVar[str] = "composite"
    PYTHON_WRAPPER: ClassVar[str] = "CompositePenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = False
    FORMULA: ClassVar[str] = "sum of the parts"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _flattened(self.parts))
        for name, neutral in (("weight", 1.0), ("weight_schedule", None), ("atom", None)):
            if getattr(self, name) != neutral:
                raise InputError(f"{name} belongs to the parts of a composite; set it there")
        learnable = any(part.is_learnable for part in self.parts)
        if self.learnable not in (None, learnable):
            raise InputError("learnable belongs to the parts of a composite; set it there")
        object.__setattr__(self, "learnable", learnable)
        # a constant of every other class, here a fact about the parts
        object.__setattr__(
            self, "ROW_BLOCK_DIAGONAL", all(part.ROW_BLOCK_DIAGONAL for part in self.parts))

    def expand(self) -> tuple[Penalty, ...]:
        """The parts."""
        return self.parts

    # --- identity ----------------------------------------------------------------------------

    @property
    def is_normalised(self) -> bool:
        """Whether the joint normaliser is known."""
        return self._is_joint_quadratic or (len(self.parts) == 1 and self.parts[0].is_normalised)

    @property
    def _is_joint_quadratic(self) -> bool:
        return all(isinstance(part, DecoderQuadratic) and part.n_strengths() == 1
                   for part in self.parts)

    @property
    def is_quadratic(self) -> bool:
        """Whether it is one quadratic part."""
        return len(self.parts) == 1 and self.parts[0].is_quadratic

    @property
    def is_smooth(self) -> bool:
        """Whether every part is."""
        return all(part.is_smooth for part in self.parts)

    def tier(self) -> PenaltyTier:
        """The tier of the parts."""
        return self.parts[0].tier()

    def acts_on(self) -> str:
        """The target of the parts."""
        return self.parts[0].acts_on()

    def name(self) -> str:
        """Kinds of the parts, as a sum."""
        return " + ".join(part.name() for part in self.parts)

    # --- outer parameters --------------------------------------------------------------------

    def n_strengths(self) -> int:
        """Strengths of all parts."""
        return sum(part.n_strengths() for part in self.parts)

    def rho_count(self) -> int:
        """Outer parameters of all parts."""
        return sum(part.rho_count() for part in self.parts)

    def initial_rho(self) -> Array:
        """Those of the parts, (rho_count,)."""
        return np.concatenate([part.initial_rho() for part in self.parts])

    def rho_bounds(self) -> Array:
        """Those of the parts, (rho_count, 2)."""
        return np.concatenate([part.rho_bounds() for part in self.parts])

    def rho_labels(self) -> tuple[str, ...]:
        """Labels of the parts behind the number of the part."""
        return tuple(f".{j}{label}" for j, part in enumerate(self.parts)
                     for label in part.rho_labels())

    def strengths(self, rho: Array) -> Array:
        """Effective weights of all parts, (n_strengths,)."""
        return np.concatenate([part.strengths(own) for part, own in self._split(rho)])

    def _split(self, rho: Array) -> list[tuple[Penalty, Array]]:
        """Every part with its own outer parameters."""
        rho = np.atleast_1d(np.asarray(rho, float))
        if rho.shape != (self.rho_count(),):
            raise InputError(
                f"{self.KIND_TAG}: rho must have {self.rho_count()} entries, got {rho.shape}"
            )
        ends = np.cumsum([part.rho_count() for part in self.parts])[:-1]
        return list(zip(self.parts, np.split(rho, ends), strict=True))

    # --- values and derivatives --------------------------------------------------------------

    def value(self, target: Array, rho: Array) -> float:
        """Sum of the parts."""
        return sum(part.value(target, own) for part, own in self._split(rho))

    def grad_target(self, target: Array, rho: Array) -> Array:
        """Sum of the parts, flat."""
        return np.sum([part.grad_target(target, own) for part, own in self._split(rho)], axis=0)

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Sum of the parts, flat."""
        return np.sum([part.hvp(target, own, v) for part, own in self._split(rho)], axis=0)

    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """Sum of the parts, flat; None where one has none."""
        total = np.zeros(np.size(target))
        for part, own in self._split(rho):
            diagonal = part.hessian_diag(target, own)
            if diagonal is None:
                return None
            total += diagonal
        return total

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Sum of the parts, flat."""
        return np.sum([part.psd_majorizer_diag(target, own) for part, own in self._split(rho)],
                      axis=0)

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Sum of the parts, flat: a sum of majorizers majorizes the sum."""
        return np.sum([part.psd_majorizer_hvp(target, own, v) for part, own in self._split(rho)],
                      axis=0)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """Those of the parts, (rho_count,)."""
        return np.concatenate([part.grad_rho(target, own) for part, own in self._split(rho)])

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """Of the one part, or of quadratic parts together; else None."""
        split = self._split(rho)
        if len(split) == 1:
            return self.parts[0].log_partition(split[0][1], n_rows)
        if not self._is_joint_quadratic:
            return None
        log_strengths = np.log(self.strengths(rho))
        matrices = [part.matrix() for part in self.parts if isinstance(part, DecoderQuadratic)]
        rank, log_det, slope = _log_determinant(matrices, log_strengths)
        learned = slope[[part.is_learnable for part in self.parts]]
        value = 0.5 * n_rows * (rank * np.log(2.0 * np.pi) - log_det)
        return float(value), -0.5 * n_rows * learned

    # --- schedule and configuration ----------------------------------------------------------

    def with_weight_schedule(self, schedule: ScalarWeightSchedule) -> Self:
        """Refused: a schedule belongs to a part."""
        raise InputError("weight_schedule belongs to the parts of a composite; set it there")

    def apply_schedule(self, iteration: int) -> Self:
        """Every part with its weight at an outer iteration."""
        return replace(self, parts=tuple(part.apply_schedule(iteration) for part in self.parts))

    def settled(self) -> Self:
        """Every part at the end of its schedule."""
        return replace(self, parts=tuple(part.settled() for part in self.parts))

    def to_config(self) -> dict[str, Any]:
        """``kind`` and the configurations of the ``parts``."""
        return {"kind": self.KIND_TAG, "parts": [part.to_config() for part in self.parts]}


Penalty.SUM = CompositePenalty


def _flattened(parts: Any) -> tuple[Penalty, ...]:
    """Penalties made from the given parts, sums among them expanded."""
    if isinstance(parts, (str, Mapping)) or not isinstance(parts, Sequence) or not parts:
        raise InputError(f"parts must be a list of penalties or configurations, got {parts!r}")
    flat: list[Penalty] = []
    for i, part in enumerate(parts):
        if isinstance(part, Mapping):
            part = from_config(part, path=f"parts[{i}]")
        if not isinstance(part, Penalty):
            raise InputError(f"parts[{i}] must be a Penalty or a dictionary, got {part!r}")
        flat += part.parts if isinstance(part, CompositePenalty) else (part,)
        if part.acts_on() != flat[0].acts_on():
            raise InputError(
                f"parts[{i}] ({part.name()}) acts on {part.acts_on()} but {flat[0].name()} on "
                f"{flat[0].acts_on()}; a sum needs one target"
            )
    sizes = {part.basis_size: part for part in flat if isinstance(part, DecoderQuadratic)}
    if len(sizes) > 1:
        raise InputError(f"parts must fit one decoder, got basis sizes {sorted(sizes)}")
    return tuple(flat)


def _log_determinant(matrices: list[Array], log_strengths: Array) -> tuple[int, float, Array]:
    """Rank r and log |sum_j lambda_j S_j|_+, with its gradient in the log strengths (J,)."""
    gradient = np.zeros(len(matrices))
    present = [j for j, S in enumerate(matrices) if S.any()]
    if not present:
        return 0, 0.0, gradient
    found = graded_sum(np.array([matrices[j] for j in present]), log_strengths[present])
    gradient[present] = found.log_det_gradient
    return found.rank, found.log_det, gradient
