"""Merge methods: one pure function each, a file each, and its signature is its schema.

A method takes blocks of elements, all of one float dtype, and gives the merged block in the same. What it
must know of whole tensors it is given. What is not finite in the base or in a model, be its weight 0, is not
finite in the merged tensor: no method makes damage disappear.
"""
