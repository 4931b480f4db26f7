"""A kernel and an initial RAM disk as a distribution ships them, which nobody has prepared for a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__: list[str] = []

#: Debian's installer for the network (package debian-installer-12-netboot-amd64).
_INSTALLER = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")

#: What turns it into a router: it runs as the first process, with nothing but BusyBox and the stock modules.
ROUTER = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
modprobe -a virtio_pci virtio_net || { modprobe virtio_pci; modprobe virtio_net; }
ip link set lo up
udhcpc -i eth0 -n -q || ipconfig -c dhcp -t 60 eth0
echo 1 > /proc/sys/net/ipv4/ip_forward
cat > /health <<'END'
#!/bin/sh
while read -r line && [ "${#line}" -gt 1 ]; do :; done
printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'
END
chmod +x /health
(while :; do nc -l -p 8080 -e /health; done) &
echo "appliance is forwarding" > /dev/console
exec sh < /dev/console > /dev/console 2>&1
"""


def kernel_and_initrd() -> tuple[Path, Path]:
    """Those of Debian's installer; elsewhere the newest ones of this computer."""
    found = [(_INSTALLER / "linux", _INSTALLER / "initrd.gz")]
    found += [
        (kernel, kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")))
        for kernel in sorted(Path("/boot").glob("vmlinuz-*"), reverse=True)
    ]
    for kernel, initrd in found:
        if kernel.is_file() and initrd.is_file():
            return kernel, initrd
    return pytest.fail("there is no stock kernel here: apt-get install debian-installer-12-netboot-amd64")


def runtime() -> str:
    """The ``runtime`` of one such machine, whose script stands beside the document as ``router.sh``."""
    kernel, initrd = kernel_and_initrd()
    files = "append: quiet rdinit=/router, files: {/router: router.sh}"
    return f"{{kind: vm, kernel: {kernel}, initrd: {initrd}, {files}, memory: 512M}}"
