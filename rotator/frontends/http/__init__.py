"""Probes and metrics by HTTP: read-only, off until an address is configured.

`server` opens the socket and runs uvicorn on our own loop, `application` says who may see what, `probes` answer
supervisors. Without an address nothing of it is loaded.
"""
