"""Bundles: what a training step was given when a NaN or an infinity was found, in one folder each."""
