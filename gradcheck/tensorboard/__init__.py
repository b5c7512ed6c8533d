"""Gradients, check reports and trips as TensorBoard shows them."""
