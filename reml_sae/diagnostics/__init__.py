"""Summary, checks and plots of a fit."""
