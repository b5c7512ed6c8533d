"""Numerical differentiation with an error bar, in NumPy alone."""
