"""Adaptation runs: methods, data, the loop, and Ray Train that drives it.

The only floor that imports transformers and peft. What loads torch is loaded when a run begins, not before.
"""
