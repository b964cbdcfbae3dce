"""Zarr version 3 stores: one array a tensor."""
