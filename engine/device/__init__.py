"""Counting where the elements are, or where it is fastest: the same integers on any device.

    Device("auto") -> one worker's device;  Device.counter(dtype) -> a counter, whatever the device

torch and triton load only when a GPU is asked for or a tensor is given.
"""

from __future__ import annotations

from engine.device.choosing import DEVICES, choose, host_bytes, might_count, settled
from engine.device.counter import AnyCounter, GpuCounter, make_counter
from engine.device.worker import Device

__all__ = [
    "DEVICES",
    "AnyCounter",
    "Device",
    "GpuCounter",
    "choose",
    "host_bytes",
    "make_counter",
    "might_count",
    "settled",
]
