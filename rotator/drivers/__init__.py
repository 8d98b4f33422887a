"""Hands: each touches exactly one outside thing and fulfils a port of core."""
