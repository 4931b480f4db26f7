"""The only door to Linux: namespaces, netlink, nftables, settings, processes."""
