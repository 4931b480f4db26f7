"""How the lab talks to its machines: SSH, setting them up, waiting until they are ready, asking them what is wrong."""
