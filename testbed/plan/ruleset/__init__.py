"""The fabric's nftables rules, as text."""
