"""HA Ports testbed: Azure's internal load balancer for network virtual appliances, on Linux."""

__version__ = "0.1.0"
