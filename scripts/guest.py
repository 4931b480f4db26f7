"""Runs a command with this checkout in a guest kernel, by emulation: ``scripts/guest.py [--limit S] -- COMMAND…``.

For what the computer's own kernel lacks (IPVS). The kernel is the one that ``scripts/install guest`` has unpacked;
``virtme-ng`` boots it in a few seconds with the computer's own file system, read-only. The guest reads it by 9p,
where Python would need seconds to start: what the command needs is packed into one file, which the guest unpacks into
memory, at the same paths. The command's output is printed as it comes; the exit status is the command's own, or
3 when the guest did not get so far, and nothing is left running. ``{results}`` in the command stands for the only
folder that outlives the guest: ``--results`` says where its content goes.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
KERNEL = ROOT / ".guest"
#: Programs of the computer that tests and labs start.
_PROGRAMS = ("bash", "cat", "curl", "env", "ethtool", "ip", "iperf3", "ls", "mount", "nft", "ping", "ps", "sh", "sleep",
             "ss", "sysctl", "tail", "tcpdump", "true", "timeout", "unshare")  # fmt: skip
#: What is large in Python's library and environment, and nothing in the guest needs.
_LEFT_OUT = {"pip", "setuptools", "mypy", "mypyc", "ruff", "virtme", "idlelib", "ensurepip", "lib2to3", "tkinter",
             "dist-packages", "turtledemo", "include", "share", "test", "pydoc_data"}  # fmt: skip
#: Of the checkout; what is needed of the environment and the kernel is packed by itself.
_LEFT_OUT_HERE = (".git", ".venv", ".guest", ".hypothesis", ".mypy_cache", ".ruff_cache", "results", "build",
                  "containers/vm-firewall/out")  # fmt: skip
_DRIVERS = ("kernel/drivers/net/veth.ko", "kernel/drivers/net/tun.ko", "kernel/drivers/net/macvlan.ko")
_MODULES = ("ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_mh", "ip_vs_sh", "ip_vs_fo", "veth",
            "nft_fwd_netdev", "nft_hash", "nft_ct", "nft_nat", "nfnetlink_cttimeout", "nf_conntrack_netlink",
            "tun", "macvlan")  # fmt: skip
_START = """\
#!/bin/bash
# Runs as root in the guest: unpack, load the modules, run the command.
share={share}
cd / && export PATH="$PATH:/usr/sbin:/sbin" HOME=/root
for folder in {folders}; do mount -t tmpfs -o size=75% tmpfs "$folder" || exit; done
# Blocks as large as a message of 9p.
tar --extract --blocking-factor=1000 --file "$share/payload.tar" --directory / || exit
mkdir -p /run/netns && ip link set lo up
for module in {modules}; do modprobe "$module" || echo "guest: there is no module $module"; done
cd {root} || exit
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD"
{command}
echo $? > "$share/status"
"""


def main() -> int:
    """Pack, boot, and pass on what the command says."""
    parser = argparse.ArgumentParser(prog="scripts/guest.py", description="Run a command in a guest kernel.")
    parser.add_argument("--limit", type=float, default=1200, help="seconds until the guest is given up (1200)")
    parser.add_argument("--memory", default="3G", help="of the guest (3G)")
    parser.add_argument("--cpus", type=int, default=2, help="of the guest (2)")
    parser.add_argument("--results", type=Path, help="where to copy what the command has left in {results}")
    parser.add_argument("command", nargs="+", help="command and arguments, in this checkout")
    arguments = parser.parse_args()
    images = sorted(KERNEL.glob("boot/vmlinuz-*"))
    if not images:
        print("guest: there is no kernel for it\n  fix: scripts/install guest", file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # as an exception, so that the guest is ended too
    with TemporaryDirectory(prefix="guest-") as folder:
        share = Path(folder)
        (share / "results").mkdir()
        _pack(share, arguments.command)
        return _run(share, images[-1], arguments)


def _pack(share: Path, command: list[str]) -> None:
    """Everything the guest reads, in one file, and what it does first."""
    environment, python = Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()
    if python in (Path("/usr"), Path("/usr/local")):  # the system's, which has much beside Python
        python = Path(sysconfig.get_path("stdlib")).resolve()
    for each in ("testbed", "tests", "bench"):
        compileall.compile_dir(ROOT / each, quiet=2)
    folders = [python, *([] if environment.is_relative_to(ROOT) else [environment]), ROOT]
    with tarfile.open(share / "payload.tar", "w") as tar:
        for folder in dict.fromkeys([*folders, environment]):
            tar.add(folder, filter=partial(_wanted, folder))
        tar.add(ROOT / ".venv", recursive=False)
        for modules in KERNEL.glob("lib/modules/*"):
            for each in ("kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto", *_DRIVERS):
                tar.add(modules / each)
            for index in modules.glob("modules.*"):
                tar.add(index)
        for program in sorted(_programs(environment)):
            if not any(program.is_relative_to(folder) for folder in folders):
                tar.add(program)
    start = _START.format(
        share=shlex.quote(str(share)),
        folders=shlex.join(map(str, folders)),
        modules=" ".join(_MODULES),
        root=shlex.quote(str(ROOT)),
        command=shlex.join(word.replace("{results}", str(share / "results")) for word in command),
    )
    (share / "start").write_text(start)


def _wanted(folder: Path, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What the guest may need of a folder: not what is large and only for development, nor what is not a file."""
    name = Path("/", entry.name)
    left_out = name != folder and (
        name.name in _LEFT_OUT
        or (name.name == "site-packages" and folder != Path(sys.prefix).resolve())
        or name in (ROOT / each for each in _LEFT_OUT_HERE)
        or name.suffix == ".a"
        or "__mypyc" in name.name
    )
    return None if left_out or not (entry.isreg() or entry.isdir() or entry.issym()) else entry


def _programs(environment: Path) -> set[Path]:
    """The programs, and the libraries that they, Python and its extensions are linked with."""
    search = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = {Path(path) for each in _PROGRAMS if (path := shutil.which(each, path=search))}
    found.add(Path(sys.executable).resolve())
    linked = [*found, *environment.rglob("*.so"), *Path("/usr/lib").glob("*/libnftables.so.1")]
    said = subprocess.run(["ldd", *map(str, linked)], capture_output=True, text=True, check=False).stdout
    libraries = {
        Path(os.path.normpath(word))
        for line in said.splitlines()
        for word in line.split()
        if word.startswith("/") and word[-1] != ":"
    }
    return {each for path in (*found, *libraries, *linked[-1:]) for each in (path, path.resolve())}


def _run(share: Path, image: Path, arguments: argparse.Namespace) -> int:
    """Boot, print the command's output as it comes, and end whatever is left when the time is up."""
    vng = Path(sys.prefix) / "bin"
    words = ["vng", "--run", str(image), "--disable-kvm", "--force-9p", "--user", "root", "--verbose"]
    words += ["--memory", arguments.memory, "--cpus", str(arguments.cpus), "--rwdir", str(share), "--cwd", "/"]
    words += ["--", f"bash {share}/start > {share}/output 2>&1"]
    environment = {**os.environ, "PATH": f"{vng}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    deadline = time.monotonic() + arguments.limit
    with (share / "console").open("wb") as console, (share / "output").open("w+b") as output:
        guest = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment, start_new_session=True
        )
        try:
            while guest.poll() is None and time.monotonic() < deadline:
                _pass_on(output)
                try:
                    guest.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            late = guest.poll() is None
        finally:
            _end(guest)
        _pass_on(output)
    if arguments.results:
        shutil.copytree(share / "results", arguments.results, dirs_exist_ok=True)
    status = share / "status"
    if status.exists() and status.read_text().strip():
        return int(status.read_text())
    reason = f"not done within {arguments.limit:g} s" if late else "it ended early"
    tail = (share / "console").read_text(errors="replace").splitlines()[-30:]
    print(f"guest: {reason}; the last lines of its console:", *tail, sep="\n  ", file=sys.stderr)
    return 3


def _pass_on(output: BinaryIO) -> None:
    while text := output.read(1 << 16):
        sys.stdout.buffer.write(text)
    sys.stdout.flush()


def _end(guest: subprocess.Popen[bytes]) -> None:
    """End the emulator and what started it: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
    guest.wait()


if __name__ == "__main__":
    sys.exit(main())
