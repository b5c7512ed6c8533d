"""Analytic gradients and numeric ones, as estimates."""
