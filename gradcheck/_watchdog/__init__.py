"""The watch over training: nothing that is not finite is written."""
