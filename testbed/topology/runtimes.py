"""What a machine is made of, and how it is reached, set up and waited for: parts of the topology document.

Files are named relative to the document. Secrets are never part of a document: they come from the environment
or from a file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag

from testbed.topology.document import Document
from testbed.topology.words import Address, Mac, Memory, Port

__all__ = [
    "ONE_LINE",
    "RUNTIME_KINDS",
    "Accelerator",
    "Access",
    "CloudInit",
    "ConfigureStep",
    "ContainerRuntime",
    "ExternalInterface",
    "ExternalRuntime",
    "Mount",
    "NamespaceRuntime",
    "Program",
    "Ready",
    "Runtime",
    "SourceNat",
    "SshAccess",
    "VirtualMachineRuntime",
]

#: Text that is not empty and has one line: a path, a command.
ONE_LINE = r"^[^\n\x00]+$"
Line = Annotated[str, StringConstraints(pattern=ONE_LINE, max_length=4096)]
#: A value that is text to whoever gets it; a plain number will do.
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class Program(StrEnum):
    """What runs in a machine of runtime ``namespace``."""

    ECHO = "echo"
    NFT_FIREWALL = "nft-firewall"


class SourceNat(StrEnum):
    """Which flows leave an appliance with its own address."""

    OUTSIDE = "outside"
    ALL = "all"
    NONE = "none"


class Accelerator(StrEnum):
    """How a virtual machine's processor is made."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class NamespaceRuntime(Document):
    """A machine that is a plain network namespace, with an optional program in it."""

    kind: Literal["namespace"] = "namespace"
    """A plain network namespace."""
    program: Program | None = None
    """``echo`` answers TCP, UDP and HTTP on every port; ``nft-firewall`` is a stateful NVA."""
    probe_port: Port = 8080
    """Where ``nft-firewall`` answers probes (TCP, HTTP and HTTPS on the same port)."""
    probe_path: str = "/health"
    """Where ``nft-firewall`` answers HTTP and HTTPS probes with 200."""
    source_nat: SourceNat = SourceNat.OUTSIDE
    """What ``nft-firewall`` gives its own address: what leaves all virtual networks, every flow, or none."""
    standby_of: Address | None = None
    """``nft-firewall`` only: answer 503 while the appliance at this address answers 200."""
    loopback_addresses: tuple[Address, ...] = ()
    """Addresses the machine owns on its loopback, e.g. the frontend when floating IP is on."""

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return (self.program.value if self.program else "idle") + (", standby" if self.standby_of else "")


class Mount(Document):
    """A folder or file of the computer that a container sees."""

    source: Line
    """On the computer; relative paths start at the document."""
    target: Line
    """In the container, absolute."""
    read_only: bool = True
    """Whether the container cannot write to it."""


class ContainerRuntime(Document):
    """A machine that is a container of a Docker engine (or of one that speaks its API, see ``DOCKER_HOST``)."""

    kind: Literal["container"]
    """A container without a network of the engine's: the lab gives it its network interfaces."""
    image: Line | None = None
    """Image to run; pulled when the engine does not have it. Either this or ``build``."""
    build: Line | None = None
    """Folder with a ``Dockerfile``: a path from the document, or a name in ``containers/`` beside ``topologies/``."""
    command: tuple[Line, ...] | None = None
    """Instead of the image's command."""
    environment: dict[Line, Text] = Field(default={})
    """Variables of its processes. Not for secrets."""
    capabilities: tuple[Line, ...] = ("NET_ADMIN", "NET_RAW")
    """Linux capabilities on top of the engine's own list. Containers are never privileged."""
    sysctls: dict[Line, Text] = Field(default={})
    """Settings of its network namespace (``net.*``), e.g. ``net.ipv4.ip_forward: 1``."""
    mounts: tuple[Mount, ...] = ()
    """What of the computer it sees."""
    memory: Memory | None = None
    """Most memory it may use, e.g. ``512M``."""
    cpus: Annotated[float, Field(gt=0, le=256)] | None = None
    """Most processor time it may use, in processors."""
    checksum_offload: bool = False
    """Whether packets may reach it with checksums that are left to hardware, which only a kernel's stack takes."""
    loopback_addresses: tuple[Address, ...] = ()
    """Addresses the machine owns on its loopback, e.g. the frontend when floating IP is on."""

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return self.image or PurePath(self.build or "").name


class CloudInit(Document):
    """A NoCloud seed for cloud-init: identity, network settings of all network interfaces, the lab's SSH key."""

    user_data: str | None = None
    """User data, e.g. a ``#cloud-config``; the lab adds the key of ``access.ssh`` when it makes the user data."""
    user_data_file: Line | None = None
    """The same from a file."""
    network_config: bool = True
    """Whether the seed has the addresses; without it the guest asks by DHCP or is set up otherwise."""


class VirtualMachineRuntime(Document):
    """A machine that is a virtual machine of QEMU. Each network interface is virtio-net with Azure's MAC address."""

    kind: Literal["vm"]
    """A virtual machine."""
    disk: Line | None = None
    """Disk image (qcow2 or raw). Never written: the machine runs on a throw-away overlay."""
    kernel: Line | None = None
    """Kernel to boot directly."""
    initrd: Line | None = None
    """Initial RAM disk, with ``kernel``."""
    append: str = ""
    """More words on the kernel's command line, with ``kernel``; the console is there already."""
    files: dict[Line, Line] = Field(default={})
    """Files that are added to ``initrd``: path in the guest to file of the computer."""
    memory: Memory = "512M"
    """Its memory, e.g. ``512M`` or ``2G``."""
    cpus: Annotated[int, Field(ge=1, le=64)] = 1
    """Its processors."""
    accelerator: Accelerator = Accelerator.AUTO
    """``auto`` is KVM where it really starts a guest, and emulation (TCG) elsewhere."""
    serial: Line | None = None
    """File that takes what the guest says on its serial console; in the lab's state directory when not given."""
    cloud_init: CloudInit | None = None
    """Seed for images that run cloud-init."""

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return PurePath(self.disk or self.kernel or "").name


class ExternalInterface(Document):
    """The cable to one network interface of a machine outside: either ``parent`` or ``interface``."""

    parent: Line | None = None
    """Network interface of this computer that stays where it is; a macvlan on it reaches the machine."""
    interface: Line | None = None
    """Network interface of this computer that is moved into the lab, and comes back at its end."""
    mac_address: Mac
    """Of the machine's own network interface at the other end."""


class ExternalRuntime(Document):
    """A machine outside: a box on network interfaces of this computer, or what a foreign tool runs behind them."""

    kind: Literal["external"]
    """A machine that the lab only wires."""
    interfaces: tuple[ExternalInterface, ...] = Field(min_length=1, max_length=8)
    """One for each of the machine's network interfaces, in the same order."""

    @property
    def summary(self) -> str:
        """What it is, in a few words."""
        return "at " + ", ".join(each.parent or each.interface or "" for each in self.interfaces)


RUNTIME_KINDS = ("namespace", "container", "vm", "external")


def _kind(value: object) -> str:
    """The runtime meant; a plain namespace when nothing is said."""
    kind = value.get("kind", "namespace") if isinstance(value, dict) else getattr(value, "kind", "namespace")
    return kind if isinstance(kind, str) else repr(kind)


Runtime = Annotated[
    Annotated[NamespaceRuntime, Tag("namespace")]
    | Annotated[ContainerRuntime, Tag("container")]
    | Annotated[VirtualMachineRuntime, Tag("vm")]
    | Annotated[ExternalRuntime, Tag("external")],
    Discriminator(_kind),
]


class SshAccess(Document):
    """SSH to the machine's primary network interface, from inside the lab."""

    username: Line
    """Who logs in."""
    password_env: Line | None = None
    """Environment variable that holds the password. Without it and without a key file: the lab's own key."""
    private_key_file: Line | None = None
    """File with a private key (not encrypted)."""
    port: Port = 22
    """Where the machine's server listens."""
    host_key: Annotated[str, StringConstraints(pattern=r"^(accept-new|known-hosts [^\n\x00]+)$")] = "accept-new"
    """``accept-new`` remembers the first key seen; ``known-hosts FILE`` knows it beforehand."""


class Access(Document):
    """How the lab talks to the machine, other than through its runtime."""

    ssh: SshAccess | None = None
    """By SSH."""


class ConfigureStep(Document):
    """One step of setting a machine up: ``commands``, or a ``template`` (or ``content``) that makes a file or commands.

    All of them are Jinja2 templates; ``env('NAME')`` is a secret from the environment.
    """

    commands: tuple[str, ...] = ()
    """Commands, one after the other; the first one that fails ends it."""
    template: Line | None = None
    """Template file. Without ``path`` each line of its result is a command."""
    content: str | None = None
    """A template in the document itself."""
    path: Line | None = None
    """File in the machine that takes the result."""
    mode: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = "0644"
    """Of that file."""


class Ready(Document):
    """When a machine is ready: all that is given here. Addresses are the machine's own."""

    tcp: Port | None = None
    """A TCP connection to this port comes up."""
    http: Line | None = None
    """A GET of this URL is answered 200, e.g. ``http://10.0.1.4:8080/health``."""
    ssh: Line | None = None
    """This command ends with 0, by ``access.ssh``."""
    log: Line | None = None
    """This regular expression is found in the machine's log (a virtual machine's: its serial console)."""
    container_health: bool = False
    """The engine's own health check (``HEALTHCHECK``) says healthy."""
