"""Arrow-Schur REML: fits SAE-manifold models end to end."""
