"""The file publishers: a reader that opens the path finds the old value or the new one, whole, at every instant."""

from pathlib import Path

from rotator.drivers.files.bundle import DATA, BundlePublisher
from rotator.drivers.files.publisher import FilePublisher, parse_location
from rotator.drivers.files.standing import standing

__all__ = ["BundlePublisher", "FilePublisher", "at", "parse_location", "standing"]


def at(path: Path) -> FilePublisher | BundlePublisher:
    """Who can take away what stands at a stored location."""
    return BundlePublisher(path.parent, {}) if path.name == DATA else FilePublisher(path)
