"""The real process on a real machine that breaks under it."""
