"""Rows that use exactly one atom each, under hard gates: all work is local to an atom."""
