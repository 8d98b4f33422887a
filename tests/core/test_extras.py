"""How a missing extra is got depends on who installed rotator."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rotator.core import extras

PIP = f"install it: {sys.executable} -m pip install "


@pytest.mark.parametrize(
    ("home", "extra", "mend"),
    [
        ("/opt/rotator/lib/python3.13/site-packages", "seal", f"{PIP}'token-rotator[seal]'"),
        ("/opt/rotator/lib/python3.13/site-packages", "postgres", f"{PIP}'token-rotator[postgres]'"),
        ("/opt/rotator/lib/python3.13/site-packages", "otel", f"{PIP}'token-rotator[otel]'"),
        ("/usr/lib/rotator", "seal", "install it: apt install python3-cryptography"),
        ("/usr/lib/rotator", "postgres", "install it: apt install python3-psycopg"),
    ],
)
def test_the_step_is_one_that_this_installation_can_take(home: str, extra: str, mend: str) -> None:
    error = extras.lacking("state.seal needs it", extra, home=Path(home))
    assert (error.what, error.mend, error.exit_code) == ("state.seal needs it", mend, 78)


def test_what_the_distribution_lacks_takes_another_installation() -> None:
    error = extras.lacking("traces.enabled needs it", "otel", home=extras.BUNDLE)
    assert "apt" not in error.mend
    assert "python3 -m venv /opt/rotator" in error.mend


def test_this_checkout_is_no_package_of_a_distribution() -> None:
    assert extras.lacking("x", "seal").mend.startswith(PIP)
