"""By what formats are recognised, known without loading what reads them."""

from __future__ import annotations

ROOT = "zarr.json"
"""The file of a Zarr group's attributes."""

METADATA = ".metadata"
"""The file that describes a distributed checkpoint of torch."""

ZIP_MAGIC = b"PK\x03\x04"
"""How a zip archive begins, and so a file of torch."""
