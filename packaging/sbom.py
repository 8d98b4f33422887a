"""Writes what is installed beside this interpreter as CycloneDX 1.5 JSON to stdout: ``python packaging/sbom.py``."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from importlib import metadata


def document() -> dict[str, object]:
    """The bill of materials; reproducible where SOURCE_DATE_EPOCH is set."""
    found = sorted(metadata.distributions(), key=lambda one: one.metadata["Name"].lower())
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": made.isoformat().replace("+00:00", "Z")},
        "components": [
            {
                "type": "library",
                "name": one.metadata["Name"],
                "version": one.version,
                "purl": f"pkg:pypi/{one.metadata['Name'].lower().replace('_', '-')}@{one.version}",
                **_licence(one),
            }
            for one in found
        ],
    }


def _licence(one: metadata.Distribution) -> dict[str, object]:
    expression = one.metadata.get("License-Expression")
    return {"licenses": [{"expression": expression}]} if expression else {}


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
