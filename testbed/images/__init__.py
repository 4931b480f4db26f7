"""Container and machine images of the testbed: found by name, built when missing, told apart by their content."""

from __future__ import annotations

from testbed.images.building import build_all, ensure
from testbed.images.engine import engine
from testbed.images.recipes import Recipe, names, recipe
from testbed.images.virtual_machine import vm_firewall

__all__ = ["Recipe", "build_all", "engine", "ensure", "names", "recipe", "vm_firewall"]
