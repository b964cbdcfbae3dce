"""Loops for one GPU. Nothing here loads torch or triton before `engine.device` asks for it.

`native` holds kernels in CUDA C++, which count in a block's shared memory and are compiled when they are
first used (`nvrtc`); `portable` holds the same in Triton, for GPUs without that compiler and, interpreted,
for tests on the CPU. Both take the same arguments and give the same integers; `tallies` chooses.
`rows` (what depends on order) and `merging` are in Triton alone.
"""
