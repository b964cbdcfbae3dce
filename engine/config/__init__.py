"""Configuration files: strict, and with all their faults told at once."""
