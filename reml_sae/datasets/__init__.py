"""Planted generators and the bundled real data."""
