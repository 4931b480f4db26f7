"""Which runtime serves which kind of machine; each is loaded when it is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from testbed.runtimes.base import Place, Runtime

__all__ = ["RUNTIMES", "runtime"]

#: Kind in documents, module and class.
RUNTIMES = {
    "namespace": ("testbed.runtimes.namespace", "NamespaceRuntime"),
    "container": ("testbed.runtimes.container", "ContainerRuntime"),
    "vm": ("testbed.runtimes.virtual_machine", "VirtualMachineRuntime"),
    "external": ("testbed.runtimes.external", "ExternalRuntime"),
}


def runtime(kind: str, place: Place) -> Runtime:
    """The runtime of a kind, for one lab."""
    module, name = RUNTIMES[kind]
    return cast("Runtime", getattr(import_module(module), name)(place))
