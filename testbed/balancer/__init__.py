"""Flow to member: the preference table, and the data planes that follow it."""
