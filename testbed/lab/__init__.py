"""The life of a lab: up, down, status, faults, events."""
