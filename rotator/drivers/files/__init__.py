"""The file publisher: a reader that opens the path finds the old value or the new one, whole, at every instant."""

from rotator.drivers.files.publisher import FilePublisher, parse_location

__all__ = ["FilePublisher", "parse_location"]
