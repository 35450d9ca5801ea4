"""Block arrowhead algebra; knows nothing of statistics."""
