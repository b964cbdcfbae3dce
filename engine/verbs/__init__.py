"""What a user can ask for: one function a verb, the command line's and Python's alike."""
