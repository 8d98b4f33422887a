"""What is configured reaches the engine."""

from __future__ import annotations

from pathlib import Path

from rotator.assembly import inspection, roster
from rotator.core.pressure import Limits
from rotator.lab import world

TEXT = """
[providers.omnifund.limits]
in_flight = 3
per_second = 0.5

[grants.one]
provider = "omnifund"
client_id = "c"

[grants.two]
provider = "omnifund-sandbox"
client_id = "c"
"""


def test_limits_of_a_provider_reach_its_grants_and_no_others(tmp_path: Path) -> None:
    async def no_key() -> bytes:
        return b""

    async def story() -> None:
        config = tmp_path / "rotator.toml"
        config.write_text(TEXT)
        config.chmod(0o600)
        enrolments = roster.ConfiguredRoster(inspection.read(config, {}), world.VirtualClock(), no_key).enrolments()
        assert enrolments["one"].limits == Limits(in_flight=3, per_second=0.5)
        assert enrolments["two"].limits == Limits()

    world.run(story)
