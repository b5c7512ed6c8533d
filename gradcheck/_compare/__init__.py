"""The comparison of an optimizer with a reference, a step at a time on the same gradients."""
