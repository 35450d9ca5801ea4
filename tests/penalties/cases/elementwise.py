"""Cases of the elementwise kinds."""

CASES = []
