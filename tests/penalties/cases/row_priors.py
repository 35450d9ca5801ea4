"""Cases of the row_priors kinds."""

CASES = []
