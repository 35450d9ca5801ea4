"""Rows that use one atom, integrated out by quadrature (DESIGN A8)."""
