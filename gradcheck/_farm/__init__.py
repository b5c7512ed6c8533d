"""Many machines: batches of points run by an executor's workers."""
