"""The loops over elements: compiled, without the interpreter's lock."""
