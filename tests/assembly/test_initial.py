"""Where `rotator init` puts secrets, for each unit that may read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotator.assembly import initial
from rotator.assembly.initial import Form, Wanted
from rotator.core.tokens import Secret

WANTED = Wanted("billing", "omnifund", "1_abc", "somebody", "billing/token", password=Secret("word"))


@pytest.mark.parametrize(
    ("config", "home"),
    [
        ("/etc/rotator/rotator.toml", "/etc/rotator"),
        ("/etc/rotator/shop-that-is-not-there/rotator.toml", "/etc/rotator/shop-that-is-not-there"),
        ("/srv/shop/rotator.toml", "/etc/rotator"),
    ],
)
def test_a_credential_is_put_where_the_unit_of_that_configuration_looks(config: str, home: str) -> None:
    found = initial.pieces(WANTED, Form.CREDENTIALS, Path(config), Path("unused"), {})
    assert [str(piece.path) for piece in found] == [f"{home}/credentials/billing.password", config]


def test_files_lie_beside_the_configuration(tmp_path: Path) -> None:
    found = initial.pieces(WANTED, Form.FILES, tmp_path / "rotator.toml", Path("unused"), {})
    assert found[0].path == tmp_path / "secrets" / "billing.password"
