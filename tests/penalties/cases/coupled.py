"""Cases of the coupled kinds."""

CASES = []
