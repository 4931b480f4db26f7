"""The event log of a lab, under the roof of what reads it; the probe controller below writes to it as well."""

from __future__ import annotations

from testbed.probes.events import FILE_NAME, Event, append, follow, read

__all__ = ["FILE_NAME", "Event", "append", "follow", "read"]
