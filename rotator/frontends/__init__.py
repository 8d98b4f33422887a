"""Where people and supervisors meet the daemon."""
