"""Who runs the tasks. Nothing else knows."""
