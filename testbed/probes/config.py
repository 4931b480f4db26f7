"""What the probe controller is started with, as one JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from testbed.errors import LabError
from testbed.plan.model import Cable, Member, Probe, Rule
from testbed.plan.ruleset.context import PROBE_SOURCE, PROBE_SOURCE_IPV6

__all__ = ["PROBE_SOURCE", "PROBE_SOURCE_IPV6", "ControllerConfig"]


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """The probe controller's orders.

    ``namespace`` is the lab's fabric; None: stay in the one the process is in. ``source`` and ``ipv6_source`` are
    the addresses that probes come from; None: whichever the kernel takes. ``backend`` names the data plane,
    ``scheduler`` is IPVS's. ``cables`` lead to the ends of flows that may have to be reset; ``stopped`` machines are
    not probed once they are known to be down.
    """

    lab: str
    namespace: str | None
    time_scale: float
    state_directory: str
    rules: tuple[Rule, ...]
    source: str | None = PROBE_SOURCE
    ipv6_source: str | None = PROBE_SOURCE_IPV6
    backend: str = "nftables"
    scheduler: str = "mh"
    cables: tuple[Cable, ...] = ()
    stopped: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As text that :meth:`from_json` reads back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ControllerConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            LabError: The text is something else.
        """
        try:
            values = json.loads(text)
            values["rules"] = tuple(_rule(each) for each in values["rules"])
            values["stopped"] = tuple(values["stopped"])
            values["cables"] = tuple(Cable(**each) for each in values["cables"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"the probe controller's configuration cannot be read: {error!r}",
                fix="run 'testbed up' again; it writes a new one",
            ) from error


def _rule(values: dict[str, Any]) -> Rule:
    values["members"] = tuple(Member(**member) for member in values["members"])
    values["reaches"] = tuple(values["reaches"])
    values["probe"] = Probe(**values["probe"]) if values["probe"] else None
    return Rule(**values)
