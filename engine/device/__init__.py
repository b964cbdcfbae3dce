"""Counting where the elements are, or where it is fastest: the same integers on any device.

    Device("auto") -> one worker's device;  Device.counter(dtype) -> a counter, whatever the device

torch and triton load only when a GPU is asked for or a tensor is given.
"""
