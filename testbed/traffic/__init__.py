"""Traffic: flows, packet templates, rings, and the measurements made with them."""
