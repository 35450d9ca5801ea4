"""Artifacts and matrix sources."""
