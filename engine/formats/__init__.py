"""From the headers of a checkpoint to what it says of itself. Strict: what does not add up is refused."""
