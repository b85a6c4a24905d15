"""``fanoutd doctor``: what could keep the daemon from its promise, and how to mend it.

A check is a function that yields findings. It may fail in any way: what it raises becomes a finding too.
"""

from __future__ import annotations

from fanoutd.doctor.findings import Finding, examine

__all__ = ["Finding", "examine"]
