"""The nftables features that a lab's rules are made of, each as the smallest ruleset that uses it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NFT_FEATURES", "NftFeature"]


@dataclass(frozen=True, slots=True)
class NftFeature:
    """A feature and the commands that try it; ``{device}`` stands for a link. ``option``: of the kernel."""

    name: str
    needed_for: str
    option: str
    text: str
    required: bool = True


NFT_FEATURES = (
    NftFeature(
        "nftables symmetric hash",
        "choosing the member of a flow",
        "CONFIG_NFT_HASH",
        """
        table ip hash {
          map owner {
            typeof symhash mod 4096 : meta mark
            elements = { 0 : 1, 4095 : 2 }
          }
          chain choose {
            type filter hook prerouting priority mangle
            meta mark set symhash mod 4096 map @owner
          }
        }
        """,
    ),
    NftFeature(
        "nftables hashes of single ends",
        "rules with load_distribution SourceIP or SourceIPProtocol",
        "CONFIG_NFT_HASH",
        """
        table ip pairs {
          map owner {
            typeof symhash mod 64 . symhash mod 64 : meta mark
            elements = { 0 . 63 : 1, 63 . 0 : 1 }
          }
          chain choose {
            type filter hook prerouting priority mangle
            meta mark set jhash ip saddr . meta l4proto mod 64 seed 7 . jhash ip daddr mod 64 seed 7 map @owner
          }
        }
        """,
        required=False,
    ),
    NftFeature(
        "nftables in IPv6",
        "IPv6 addresses in a document",
        "CONFIG_NF_TABLES_IPV6",
        """
        table ip6 both {
          set flows {
            typeof ip6 saddr . meta l4proto . th sport . th dport
            size 65535
            flags dynamic,timeout
          }
          chain choose {
            type filter hook prerouting priority mangle
            meta l4proto tcp update @flows { ip6 saddr . meta l4proto . th sport . th dport timeout 1s }
            meta mark set symhash mod 4096
            ip6 daddr fd00::4 ip6 daddr set fd00::5
          }
        }
        """,
        required=False,
    ),
    NftFeature(
        "nftables conntrack zones",
        "keeping the two legs of a flow apart",
        "CONFIG_NF_CONNTRACK_ZONES, CONFIG_NFT_CT",
        """
        table ip zones {
          chain classify {
            type filter hook prerouting priority raw
            iifname "lo" ct zone set 7 accept
            notrack
          }
          chain remember {
            type filter hook prerouting priority mangle
            ct state new ct mark set 1
          }
        }
        """,
    ),
    NftFeature(
        "nftables conntrack timeouts",
        "the idle timeout of a rule",
        "CONFIG_NF_CONNTRACK_TIMEOUT",
        """
        table ip timeouts {
          ct timeout idle {
            protocol tcp
            l3proto ip
            policy = { established : 240 }
          }
          chain age {
            type filter hook prerouting priority mangle
            meta l4proto tcp ct timeout set "idle"
          }
        }
        """,
    ),
    NftFeature(
        "nftables address translation",
        "the ways to the internet, and programs that answer on every port",
        "CONFIG_NFT_NAT, CONFIG_NFT_REDIR, CONFIG_NFT_MASQ",
        """
        table ip translate {
          chain enter {
            type nat hook prerouting priority dstnat
            meta l4proto tcp redirect to :7
            meta l4proto udp dnat to 192.0.2.1
          }
          chain leave {
            type nat hook postrouting priority srcnat
            oifname "lo" snat to 192.0.2.2
            oifname "{device}" masquerade
          }
        }
        """,
    ),
    NftFeature(
        "nftables named counters",
        "flows and packets per member",
        "CONFIG_NF_TABLES (5.0 or newer)",
        """
        table ip counters {
          counter packets_1 {
          }
          map packets {
            type mark : counter
            elements = { 1 : "packets_1" }
          }
          chain count {
            type filter hook prerouting priority mangle
            counter name meta mark map @packets
          }
        }
        """,
    ),
    NftFeature(
        "nftables dynamic maps",
        "frontends that are addressed themselves, without floating IP",
        "CONFIG_NF_TABLES_IPV4 (5.6 or newer)",
        """
        table ip remember {
          map frontend {
            typeof ip saddr . meta l4proto . th sport . th dport : ip daddr
            size 1024
            flags dynamic,timeout
          }
          chain there {
            type filter hook prerouting priority mangle
            update @frontend { ip saddr . meta l4proto . th sport . th dport timeout 9s : ip daddr }
            ip daddr set 192.0.2.2
          }
          chain back {
            type filter hook prerouting priority raw
            ip saddr set ip daddr . meta l4proto . th dport . th sport map @frontend
          }
        }
        """,
    ),
    NftFeature(
        "nftables socket match",
        "programs that answer on every port, with real services beside them",
        "CONFIG_NFT_SOCKET (5.11 or newer)",
        """
        table ip sockets {
          chain own {
            type nat hook prerouting priority dstnat
            meta l4proto tcp socket wildcard 0 accept
            meta l4proto tcp redirect to :7
          }
        }
        """,
    ),
    NftFeature(
        "nftables egress hook",
        "network security groups",
        "CONFIG_NETFILTER_EGRESS (5.16 or newer)",
        """
        table netdev guard {
          set flows {
            typeof ip saddr . ip daddr . meta l4proto . th sport . th dport
            size 1024
            flags dynamic,timeout
          }
          chain out {
            type filter hook egress device {device} priority filter
            update @flows { ip saddr . ip daddr . meta l4proto . th sport . th dport timeout 9s } accept
          }
        }
        """,
        required=False,
    ),
    NftFeature(
        "nftables forwarding of frames",
        "virtual machines, and machines outside",
        "CONFIG_NFT_FWD_NETDEV",
        """
        table netdev wire {
          chain in {
            type filter hook ingress device {device} priority filter
            fwd to {device}
          }
        }
        """,
        required=False,
    ),
    NftFeature(
        "nftables reject on ingress",
        "fault probe-down of containers, virtual machines and machines outside",
        "CONFIG_NFT_REJECT_NETDEV",
        """
        table netdev refusing {
          chain in {
            type filter hook ingress device {device} priority -100
            tcp dport 80 reject with tcp reset
          }
        }
        """,
        required=False,
    ),
)
