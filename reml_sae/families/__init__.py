"""Likelihoods: loss, IRLS weights, dispersion."""
