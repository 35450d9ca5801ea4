"""Cases of the gram kinds."""

CASES = []
