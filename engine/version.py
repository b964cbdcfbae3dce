"""The version, which every subject records."""

__version__ = "0.1.0"
