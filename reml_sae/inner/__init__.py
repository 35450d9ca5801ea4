"""PIRLS: damped Newton on an arrow model."""

from reml_sae.inner.pcg import PCGResult, preconditioned_cg
from reml_sae.inner.pirls import InnerSolution, InnerStatus, solve_inner

__all__ = ["InnerSolution", "InnerStatus", "PCGResult", "preconditioned_cg", "solve_inner"]
