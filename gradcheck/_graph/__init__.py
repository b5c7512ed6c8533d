"""TensorFlow graphs: traced once, rewritten, and run again."""
