"""The model of a doctor's report; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Capability", "Report"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing the testbed can use.

    ``needed_for`` says what stops working without it, ``detail`` what was seen when it was tried, and ``fix``
    what to type, or which kernel option is missing. ``required``: no lab comes up without it. ``tried`` is false
    where something else has to be put right first.
    """

    name: str
    needed_for: str
    required: bool
    available: bool
    detail: str
    fix: str = ""
    tried: bool = True

    @property
    def missing(self) -> bool:
        """Whether it was tried and is not there."""
        return self.tried and not self.available


@dataclass(frozen=True, slots=True)
class Report:
    """What this computer can do, in the order it was tried."""

    capabilities: tuple[Capability, ...]

    @property
    def missing_required(self) -> tuple[Capability, ...]:
        """What keeps labs from coming up here; empty on a computer that is ready."""
        return tuple(each for each in self.capabilities if each.required and each.missing)

    @property
    def missing_optional(self) -> tuple[Capability, ...]:
        """What labs can do without."""
        return tuple(each for each in self.capabilities if not each.required and each.missing)

    @property
    def fixes(self) -> tuple[str, ...]:
        """What to type or change, each once: what is required comes first."""
        return tuple(dict.fromkeys(each.fix for each in (*self.missing_required, *self.missing_optional) if each.fix))

    def to_json(self) -> dict[str, Any]:
        """For ``json``: ``{ready, capabilities: [{name, needed_for, required, available, detail, fix, tried}]}``."""
        return {"ready": not self.missing_required, "capabilities": [asdict(each) for each in self.capabilities]}

    def to_text(self) -> str:
        """A table for people, then what to do about it."""
        width = max((len(each.name) for each in self.capabilities), default=0)
        lines = [f"{_word(each):8} {each.name:{width}}  {each.detail}" for each in self.capabilities]
        for title, lacking in (
            ("No lab comes up without", self.missing_required),
            ("Optional", self.missing_optional),
        ):
            if lacking:
                lines += ["", f"{title}:"]
            for each in lacking:
                lines.append(f"  {each.name}, for {each.needed_for}")
                lines += [f"    fix: {each.fix}"] if each.fix else []
        untried = sum(not each.tried for each in self.capabilities)
        lines += ["", f"Not tried yet: {untried}. Put right what comes before, and look again."] if untried else []
        lines += ["", "This computer is not ready." if self.missing_required else "This computer is ready."]
        return "\n".join(lines)


def _word(capability: Capability) -> str:
    if capability.available:
        return "ok"
    if not capability.tried:
        return "untried"
    return "MISSING" if capability.required else "absent"
