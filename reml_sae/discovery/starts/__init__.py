"""Codes from which a fit starts, proposed by the linear relaxations."""
