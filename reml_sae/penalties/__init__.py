"""Penalties: contract, manifest, registry, schedules."""
