"""PostgreSQL as the store: any number of daemons on any number of machines (psycopg 3 lives here alone)."""

from rotator.drivers.postgres.failures import NoState
from rotator.drivers.postgres.link import Address
from rotator.drivers.postgres.store import PostgresStore

__all__ = ["Address", "NoState", "PostgresStore"]
