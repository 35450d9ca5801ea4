"""PIRLS: damped Newton on an arrow model."""
