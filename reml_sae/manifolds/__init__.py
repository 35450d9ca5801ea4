"""Atom topologies: bases, derivatives, roughness, gauge, retraction."""
