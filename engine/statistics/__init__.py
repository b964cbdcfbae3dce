"""Numbers from a sketch. Every one of them is defined here or in `sql/`, never in both."""
