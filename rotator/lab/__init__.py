"""A world to break on purpose; production would not miss it."""
