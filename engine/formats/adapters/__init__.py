"""Adapters as PEFT saves them: settings in JSON, and the weights of what they change."""

from __future__ import annotations

from engine.formats.adapters.opening import SETTINGS, open_adapter

__all__ = ["SETTINGS", "open_adapter"]
