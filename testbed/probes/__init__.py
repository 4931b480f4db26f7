"""Health probes: the state machine, the probers, and the controller process."""
