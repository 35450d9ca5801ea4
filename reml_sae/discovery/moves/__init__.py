"""Changes of a fitted model's structure, proposed one by one and judged by V."""
