"""The criterion, its adjoint gradient, the REML loop and its trace."""
