"""Where Azure's documents disagree with each other or with what is observed: a default, and a switch.

What the documents say, and why the default is what it is, stands in ``docs/azure-fidelity.md``.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from testbed.topology.document import Document

__all__ = [
    "AdminStateDown",
    "ForwardedTraffic",
    "HttpProbeTimeout",
    "NumberOfProbes",
    "SingleInstanceAllDown",
    "Switches",
    "Transport",
]


class Transport(StrEnum):
    """What the balancer does with packets that a rule may or may not cover."""

    FORWARD = "Forward"
    DROP = "Drop"


class ForwardedTraffic(StrEnum):
    """How ``allow_forwarded_traffic`` of a peering is taken."""

    DOCUMENTED = "Documented"
    PERMISSIVE = "Permissive"


class AdminStateDown(StrEnum):
    """What admin state ``Down`` does to established TCP flows."""

    PERSIST = "Persist"
    RESET = "Reset"


class NumberOfProbes(StrEnum):
    """Whether ``number_of_probes`` of a probe has an effect."""

    IGNORED = "Ignored"
    RESPECTED = "Respected"


class HttpProbeTimeout(StrEnum):
    """How long an HTTP or HTTPS probe waits for its answer."""

    INTERVAL = "Interval"
    THIRTY_SECONDS = "ThirtySeconds"
    THIRTY_ONE_SECONDS = "ThirtyOneSeconds"


class SingleInstanceAllDown(StrEnum):
    """What becomes of established TCP flows when the only member of a pool is down."""

    FLOWS_END = "FlowsEnd"
    FLOWS_CONTINUE = "FlowsContinue"


class Switches(Document):
    """Decisions where Azure's own documents differ."""

    icmp: Transport = Transport.FORWARD
    """ICMP through a rule: documented as not supported, reported to work."""
    fragments: Transport = Transport.DROP
    """Fragmented datagrams through a rule: the overview says not supported, "Concepts" of 2020 said forwarded."""
    allow_forwarded_traffic: ForwardedTraffic = ForwardedTraffic.DOCUMENTED
    """``Documented`` enforces the flag of each peering, ``Permissive`` lets forwarded traffic in, as users saw."""
    admin_state_down: AdminStateDown = AdminStateDown.PERSIST
    """Established TCP of a member whose admin state is Down: stays (its overview), or is reset (the API's text)."""
    number_of_probes: NumberOfProbes = NumberOfProbes.IGNORED
    """``Respected`` takes it for ``probe_threshold`` where that is not given."""
    http_probe_timeout: HttpProbeTimeout = HttpProbeTimeout.INTERVAL
    """``Interval`` is the smaller of the interval and 30 s; the others are what earlier editions said."""
    single_instance_all_down: SingleInstanceAllDown = SingleInstanceAllDown.FLOWS_END
    """The documents promise that flows go on only for pools of more than one member."""
    tcp_reset_on_ha_ports: bool = False
    """Whether ``enable_tcp_reset`` also works for HA Ports rules with an appliance in the path."""
    probe_hold_down: bool = True
    """Whether a member whose probe flaps is kept out for longer."""
    route_update_delay: float = Field(default=0, ge=0, le=600)
    """Seconds, before ``time_scale``, until a changed route takes effect."""
