"""Times Mininet: hosts on one Linux bridge, up and down. Runs with the system's Python, which has mininet.

Usage: ``/usr/bin/python3 mininet_hosts.py HOSTS``; prints ``{"up": seconds, "down": seconds}``.
"""

import json
import sys
import time

from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo

__all__ = ["main"]


def main(hosts: int) -> None:
    """Build and start, then stop; what a user waits for between the two commands."""
    setLogLevel("error")
    start = time.perf_counter()
    net = Mininet(SingleSwitchTopo(k=hosts), switch=LinuxBridge, controller=None)
    net.start()
    ready = time.perf_counter()
    net.stop()
    print(json.dumps({"up": ready - start, "down": time.perf_counter() - ready}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
