"""Examples: from files, to batches."""
