"""Topology to plan: effective routes, rulesets, kernel objects. Pure."""
