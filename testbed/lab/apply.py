"""Carry changes out on the kernel, one by one."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Self

from testbed.errors import LabError, TestbedError
from testbed.kernel import devices, ipvs, namespaces, nft, processes, sysctl
from testbed.kernel.netlink import Netlink, RouteEntry, RuleEntry
from testbed.lab import controller, daemons
from testbed.lab.state import Running
from testbed.plan import objects, virtual_services
from testbed.plan.describe import title
from testbed.plan.replacement import BALANCER_TABLES, replacement
from testbed.runtimes.registry import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from testbed.lab.changes import Change
    from testbed.lab.state import State
    from testbed.plan.model import Plan, Rule
    from testbed.plan.objects import KernelObject
    from testbed.runtimes.base import Runtime

__all__ = ["KEEPER", "Applier", "remove_namespaces"]

#: Its name among the lab's processes; no machine may have it.
KEEPER = "keeper"


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
        """Carry out the changes in order; instances of one runtime that follow each other are started together.

        Raises:
            LabError: A step failed; the note on it says which. What was done before it stays done.
        """
        waiting: list[objects.Instance] = []
        for change in changes:
            self._checkpoint(change)
            starts = change.object if change.action == "add" and isinstance(change.object, objects.Instance) else None
            if waiting and (starts is None or starts.runtime != waiting[0].runtime):
                self._start(waiting)
                waiting = []
            if starts is not None:
                waiting.append(starts)
            else:
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

    def _add(self, thing: KernelObject) -> None:  # noqa: C901, PLR0912 - one line per kind of object
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
            case objects.VirtualServices():
                self._serve(thing)
            case objects.Ruleset():
                self._load(thing)
            case objects.Instance():
                self._start([thing])
            case objects.Controller():
                controller.start(self._plan, self._state, thing.config)
            case objects.Keeper():
                self._start_keeper(thing.config)
            case objects.Tap() | objects.Macvlan() | objects.MovedLink() | objects.NoChecksumOffload():
                self._add_device(thing)

    def _remove(self, thing: KernelObject) -> None:  # noqa: C901, PLR0912 - one line per kind of object
        match thing:
            case objects.Namespace():
                self._forget(thing.namespace)
                remove_namespaces(each for each in namespaces.owned(self._plan.lab) if each.name == thing.namespace)
            case objects.Sysctl() | objects.LinkUp():
                pass  # goes with its namespace or cable
            case objects.MovedLink():
                self._forget(thing.namespace)
                devices.send_home(thing.namespace)
            case objects.NoChecksumOffload():
                with namespaces.entered(thing.namespace):
                    devices.set_checksum_offload(thing.link, on=True)
            case objects.Veth() | objects.Tap() | objects.Macvlan():
                self._netlink(thing.namespace).delete_link(thing.name)
            case objects.Address():
                self._netlink(thing.namespace).address("del", thing.link, thing.address)
            case objects.Neighbor():
                self._netlink(thing.namespace).neighbor("del", thing.link, thing.address, thing.mac)
            case objects.Route():
                self._netlink(thing.namespace).route("del", _route(thing))
            case objects.RoutingRule():
                self._netlink(thing.namespace).rule("del", _rule(thing))
            case objects.VirtualServices():
                self._serve(objects.VirtualServices(thing.namespace, ()))
            case objects.Ruleset():
                self._unload(thing)
            case objects.Instance():
                self._stop(thing)
            case objects.Controller():
                daemons.stop(self._state, controller.NAME)
            case objects.Keeper():
                daemons.stop(self._state, KEEPER)

    def _add_cable(self, veth: objects.Veth) -> None:
        netlink = self._netlink(veth.namespace)
        peer = namespaces.path(veth.peer_namespace)
        netlink.add_veth(veth.name, veth.mac, veth.mtu, peer, veth.peer_name, veth.peer_mac)
        netlink.add_altname(veth.name, veth.altname)
        netlink.set_link(veth.name, up=True)
        self._forget(veth.peer_namespace)  # it may remember the index of an earlier cable

    def _add_device(self, thing: objects.Tap | objects.Macvlan | objects.MovedLink | objects.NoChecksumOffload) -> None:
        self._forget(thing.namespace)
        match thing:
            case objects.Tap():
                with namespaces.entered(thing.namespace):
                    devices.add_tap(thing.name)
            case objects.Macvlan():
                with Netlink() as netlink:
                    netlink.add_macvlan(thing.name, thing.parent, thing.mac, namespaces.path(thing.namespace))
                    netlink.set_link(thing.parent, up=True)
            case objects.MovedLink():
                devices.take(thing.interface, thing.namespace, thing.name)
            case objects.NoChecksumOffload():
                with namespaces.entered(thing.namespace):
                    devices.set_checksum_offload(thing.link, on=False)

    def _forget(self, namespace: str) -> None:
        """Drop what is remembered of a namespace: it is another one now, or has other links."""
        if (netlink := self._netlinks.pop(namespace, None)) is not None:
            netlink.close()

    def _serve(self, wanted: objects.VirtualServices) -> None:
        """Make IPVS have these services; members that are eligible get their weights at once."""
        weights: dict[int, dict[str, int]] = {}
        with namespaces.entered(wanted.namespace), closing(ipvs.Ipvs()) as door:
            eligible = self._eligible(self._plan.rules) if wanted.services else {}
            for rule in self._plan.rules:
                given = virtual_services.weights(rule, eligible.get(rule.id, frozenset()), self._plan.scheduler)
                weights |= dict.fromkeys(virtual_services.service_marks(rule), given)
            door.converge(
                [ipvs.Service(each.mark, each.scheduler, each.flags, each.destinations) for each in wanted.services],
                weights,
            )

    def _load(self, ruleset: objects.Ruleset) -> None:
        """Replace the rules; members that are eligible stay so, flows stay known, and no packet meets a gap."""
        with namespaces.entered(ruleset.namespace):
            if ruleset.namespace != self._plan.fabric:
                nft.run(nft.replacing(ruleset.text, ruleset.tables))
                return
            (table,) = ruleset.tables
            filled = self._eligible_now(table)
            present = nft.chains((table,))
            loaded = self._state.ruleset(table) if present else None
            nft.run(replacement(table, loaded, ruleset.text, filled, present=present))
        self._state.write_ruleset(table, ruleset.text)

    def _eligible_now(self, table: str) -> str:
        """The elements of a table that make the members eligible that are so now; nobody, in a table that is new."""
        rules = tuple(rule for rule in self._plan.rules if BALANCER_TABLES[rule.version] == table)
        if not rules:
            return ""
        from testbed.balancer import nftables  # with numpy, which a lab without rules does not need

        return nftables.elements(rules, self._eligible(rules))

    def _eligible(self, rules: Iterable[Rule]) -> dict[int, frozenset[int]]:
        """Per rule, who is eligible in the fabric's table now."""
        from testbed.balancer import nftables

        eligible = {}
        for rule in rules:
            with suppress(LabError):  # a new rule has nobody yet
                eligible[rule.id] = nftables.read_eligible(rule)
        return eligible

    def _unload(self, ruleset: objects.Ruleset) -> None:
        with namespaces.entered(ruleset.namespace):
            nft.run(nft.replacing("", ruleset.tables))

    def _start_keeper(self, config: str) -> None:
        """Start it; it goes into the fabric's namespace when it hears the engine."""
        fabric, lab = self._plan.fabric, self._plan.lab

        def problem(process: processes.Process) -> str:
            return "" if process.inside(fabric) else "it does not hear the engine yet"

        daemons.start(self._state, KEEPER, "testbed.lab.keeper", lab, config=config, problem=problem)

    def _runtime(self, kind: str) -> Runtime:
        return runtime(kind, self._state.place)

    def _start(self, instances: list[objects.Instance]) -> None:
        """Start instances of one runtime; what is left of earlier ones is ended first."""
        known = self._state.running()
        processes.end(known[each.machine].process for each in instances if each.machine in known)
        for each in instances:
            self._forget(each.namespace)
        started = self._runtime(instances[0].runtime).start(instances)
        self._state.remember(
            {each.machine: Running(started[each.machine], each.kind, each.config) for each in instances}
        )

    def _stop(self, instance: objects.Instance) -> None:
        self._forget(instance.namespace)
        running = self._state.running()
        entry = running.pop(instance.machine, None)
        self._runtime(instance.runtime).stop(instance.machine, entry.process if entry else None)
        self._state.write_running(running)


def remove_namespaces(owned: Iterable[namespaces.OwnedNamespace]) -> None:
    """Remove namespaces and whatever runs in them; network interfaces of the computer go back to it."""
    doomed = tuple(owned)
    for each in doomed:
        if each.mounted:
            devices.send_home(each.name)
    inodes = [namespaces.inode(each.name) for each in doomed if each.mounted]
    processes.end(processes.inside(inodes))
    for each in doomed:
        namespaces.delete(each.name)


def _route(route: objects.Route) -> RouteEntry:
    return RouteEntry(route.table, route.destination, route.kind, route.gateway, route.link)


def _rule(rule: objects.RoutingRule) -> RuleEntry:
    return RuleEntry(rule.priority, rule.mark, rule.mask, rule.table, rule.version)
