"""From an inventory and a budget to tasks. Whatever cannot run is refused here, before anything runs."""

from __future__ import annotations

from engine.plan.limits import (
    BASE_BYTES,
    BLOCK_BYTES,
    COUNTER_BYTES,
    MIB,
    REFINE_BYTES,
    RESULT_BYTES,
    TASK_BYTES,
    Limits,
    Selection,
)
from engine.plan.pack import plan_pack
from engine.plan.scan import Plan, plan_refine, plan_scan
from engine.plan.spectra import plan_spectra

__all__ = [
    "BASE_BYTES",
    "BLOCK_BYTES",
    "COUNTER_BYTES",
    "MIB",
    "REFINE_BYTES",
    "RESULT_BYTES",
    "TASK_BYTES",
    "Limits",
    "Plan",
    "Selection",
    "plan_pack",
    "plan_refine",
    "plan_scan",
    "plan_spectra",
]
