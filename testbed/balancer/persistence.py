"""Members that keep established TCP though nobody is eligible: for pools of one, where that is not the rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from testbed.balancer.nftables import TABLE
from testbed.kernel.nft_elements import Elements, NftSocket

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from testbed.plan.model import Rule

__all__ = ["set_persistent"]


def set_persistent(rule: Rule, members: AbstractSet[int]) -> None:
    """Make it exactly these members, in the fabric's namespace.

    Raises:
        LabError: The rule has no such set.
    """
    name = f"persistent_{rule.id}"
    netlink = NftSocket(TABLE, rule.version)
    try:
        present = netlink.elements(name)
        gone, come = sorted(present - members), sorted(members - present)
        changes = [
            Elements(name, np.array(gone, dtype=np.uint32)[:, None], delete=True),
            Elements(name, np.array(come, dtype=np.uint32)[:, None]),
        ]
        netlink.commit([each for each in changes if len(each.keys)])
    finally:
        netlink.close()
