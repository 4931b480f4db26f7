"""Carry changes out on the kernel, one by one."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from testbed.errors import LabError, TestbedError
from testbed.kernel import namespaces, nft, processes, sysctl
from testbed.kernel.netlink import Netlink, RouteEntry, RuleEntry
from testbed.lab import controller
from testbed.lab.state import Running
from testbed.nodes import launcher
from testbed.plan import objects
from testbed.plan.describe import title
from testbed.plan.replacement import replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from testbed.lab.changes import Change
    from testbed.lab.state import State
    from testbed.plan.model import Plan
    from testbed.plan.objects import KernelObject

__all__ = ["Applier", "remove_namespaces"]


class Applier:
    """Makes and removes the objects of one lab. Use it as a context manager: it holds netlink sockets.

    Args:
        plan: The plan being applied.
        state: Where processes and the loaded ruleset are remembered.
        checkpoint: Called before each change; whatever it raises counts as that step's failure.
    """

    def __init__(self, plan: Plan, state: State, checkpoint: Callable[[Change], None] | None = None) -> None:
        self._plan = plan
        self._state = state
        self._checkpoint = checkpoint or (lambda _change: None)
        self._netlinks: dict[str, Netlink] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def apply(self, changes: Iterable[Change]) -> None:
        """Carry out the changes in order; programs that follow each other are started together.

        Raises:
            LabError: A step failed; the note on it says which. What was done before it stays done.
        """
        waiting: list[objects.Program] = []
        for change in changes:
            self._checkpoint(change)
            if change.action == "add" and isinstance(change.object, objects.Program):
                waiting.append(change.object)
                continue
            if waiting:
                self._start(waiting)
                waiting = []
            self._carry_out(change)
        if waiting:
            self._start(waiting)

    def _carry_out(self, change: Change) -> None:
        try:
            (self._add if change.action == "add" else self._remove)(change.object)
        except TestbedError as error:
            error.add_note(f"while trying to {change.action} {title(change.object)}")
            raise

    def _netlink(self, namespace: str) -> Netlink:
        if namespace not in self._netlinks:
            with namespaces.entered(namespace):
                self._netlinks[namespace] = self._stack.enter_context(Netlink())
        return self._netlinks[namespace]

    def _add(self, thing: KernelObject) -> None:  # noqa: C901 - one line per kind of object
        match thing:
            case objects.Namespace():
                namespaces.create(thing.namespace, self._plan.lab)
            case objects.Sysctl():
                with namespaces.entered(thing.namespace):
                    sysctl.write(thing.key, thing.value)
            case objects.Veth():
                self._add_cable(thing)
            case objects.LinkUp():
                self._netlink(thing.namespace).set_link(thing.link, up=True)
            case objects.Address():
                self._netlink(thing.namespace).address("add", thing.link, thing.address)
            case objects.Neighbor():
                self._netlink(thing.namespace).neighbor("replace", thing.link, thing.address, thing.mac)
            case objects.Route():
                self._netlink(thing.namespace).route("replace", _route(thing))
            case objects.RoutingRule():
                self._netlink(thing.namespace).rule("add", _rule(thing))
            case objects.Ruleset():
                self._load(thing)
            case objects.Program():
                self._start([thing])
            case objects.Controller():
                controller.start(self._plan, self._state, thing.config)

    def _remove(self, thing: KernelObject) -> None:  # noqa: C901 - one line per kind of object
        match thing:
            case objects.Namespace():
                if (netlink := self._netlinks.pop(thing.namespace, None)) is not None:
                    netlink.close()
                remove_namespaces(each for each in namespaces.owned(self._plan.lab) if each.name == thing.namespace)
            case objects.Sysctl() | objects.LinkUp():
                pass  # goes with its namespace or cable
            case objects.Veth():
                self._netlink(thing.namespace).delete_link(thing.name)
            case objects.Address():
                self._netlink(thing.namespace).address("del", thing.link, thing.address)
            case objects.Neighbor():
                self._netlink(thing.namespace).neighbor("del", thing.link, thing.address, thing.mac)
            case objects.Route():
                self._netlink(thing.namespace).route("del", _route(thing))
            case objects.RoutingRule():
                self._netlink(thing.namespace).rule("del", _rule(thing))
            case objects.Ruleset():
                self._unload(thing)
            case objects.Program():
                self._stop(thing.machine)
            case objects.Controller():
                controller.stop(self._state)

    def _add_cable(self, veth: objects.Veth) -> None:
        netlink = self._netlink(veth.namespace)
        peer = namespaces.path(veth.peer_namespace)
        netlink.add_veth(veth.name, veth.mac, veth.mtu, peer, veth.peer_name, veth.peer_mac)
        netlink.add_altname(veth.name, veth.altname)
        netlink.set_link(veth.name, up=True)
        stale = self._netlinks.pop(veth.peer_namespace, None)  # it may remember the index of an earlier cable
        if stale is not None:
            stale.close()

    def _load(self, ruleset: objects.Ruleset) -> None:
        """Replace the rules; members that are eligible stay so, and no packet meets a gap."""
        with namespaces.entered(ruleset.namespace):
            filled = self._eligible_now() if self._plan.rules else ""
            loaded = self._state.ruleset() if "table ip testbed" in nft.run("list tables").splitlines() else None
            nft.run(replacement(loaded, ruleset.text, filled))
        self._state.write("ruleset.nft", ruleset.text)

    def _eligible_now(self) -> str:
        """The elements that make the members eligible that are so now; nobody, in a table that is new."""
        from testbed.balancer import nftables  # with numpy, which a lab without rules does not need

        eligible = {}
        for rule in self._plan.rules:
            with suppress(LabError):  # a new rule has nobody yet
                eligible[rule.id] = nftables.read_eligible(rule.id)
        return nftables.elements(self._plan.rules, eligible)

    def _unload(self, ruleset: objects.Ruleset) -> None:
        with namespaces.entered(ruleset.namespace):
            nft.run(nft.replacing("", ruleset.tables))

    def _start(self, programs: list[objects.Program]) -> None:
        for each in programs:
            self._stop(each.machine)  # one that lives in a namespace that was replaced
        logs = self._state.directory
        started = launcher.launch(
            [
                launcher.ProgramSpec(
                    each.namespace, each.machine, each.kind, each.config, str(logs / f"{each.machine}.log")
                )
                for each in programs
            ]
        )
        self._state.remember(
            {
                program.machine: Running(processes.Process(each.pid, each.start_time), program.kind, program.config)
                for each, program in zip(started, programs, strict=True)
            }
        )

    def _stop(self, machine: str) -> None:
        running = self._state.running()
        if (entry := running.pop(machine, None)) is not None:
            processes.end([entry.process])
            self._state.write_running(running)


def remove_namespaces(owned: Iterable[namespaces.OwnedNamespace]) -> None:
    """Remove namespaces and whatever runs in them."""
    doomed = tuple(owned)
    inodes = [namespaces.inode(each.name) for each in doomed if each.mounted]
    processes.end(processes.inside(inodes))
    for each in doomed:
        namespaces.delete(each.name)


def _route(route: objects.Route) -> RouteEntry:
    return RouteEntry(route.table, route.destination, route.kind, route.gateway, route.link)


def _rule(rule: objects.RoutingRule) -> RuleEntry:
    return RuleEntry(rule.priority, rule.mark, rule.mask, rule.table)
