"""Figures of lme4, glmmTMB, mgcv and nlmer, and the data to reproduce them; see README.md."""
