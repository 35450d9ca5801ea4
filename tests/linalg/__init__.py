"""Tests of the arrowhead algebra, one module a property."""
