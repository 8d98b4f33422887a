"""Probes, metrics and the status page by HTTP: read-only, off until an address is configured.

`server` opens the socket and runs uvicorn on our own loop, `application` says who may see what, `probes` answer
supervisors, `board`, `rows` and `page` choose and draw, `stream` keeps an open page true, `history` remembers what it
shows of the last day.

Before the server starts only `history` is loaded; without an address nothing is.
"""
