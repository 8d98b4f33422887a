"""The tree of errors: who must act, the exit code of sysexits.h, and one line with the mending step."""

from __future__ import annotations

import os

import pytest

from rotator.core import errors

CODES = {
    errors.RotatorError: os.EX_SOFTWARE,
    errors.Transient: os.EX_TEMPFAIL,
    errors.Unavailable: os.EX_UNAVAILABLE,
    errors.Doubtful: os.EX_TEMPFAIL,
    errors.Refused: os.EX_NOPERM,
    errors.Misconfigured: os.EX_CONFIG,
    errors.BadUsage: os.EX_USAGE,
    errors.StateDamaged: os.EX_DATAERR,
    errors.Overtaken: os.EX_TEMPFAIL,
}


def everything(root: type[errors.RotatorError]) -> set[type[errors.RotatorError]]:
    return {root}.union(*(everything(child) for child in root.__subclasses__()))


def test_every_error_has_its_exit_code_and_stands_in_the_drawing() -> None:
    assert everything(errors.RotatorError) == set(CODES)
    assert errors.__doc__ is not None
    for error, code in CODES.items():
        assert error.exit_code == code
        assert error.__name__ in errors.__doc__
    assert (errors.EXIT_OK, errors.EXIT_BUG) == (os.EX_OK, os.EX_SOFTWARE)


@pytest.mark.parametrize("error", CODES)
def test_an_error_says_what_is_wrong_and_how_to_mend_it(error: type[errors.RotatorError]) -> None:
    raised = error("grants.billing.password cannot be read", mend="check its mode")
    assert (raised.what, raised.mend) == ("grants.billing.password cannot be read", "check its mode")
    assert str(raised) == "grants.billing.password cannot be read; check its mode"
    assert str(error("it is away")) == "it is away"


def test_who_waits_for_what_is_away_also_waits_for_any_of_its_kind() -> None:
    assert issubclass(errors.Unavailable, errors.Transient)
    assert issubclass(errors.BadUsage, errors.Misconfigured)
    assert issubclass(errors.StateDamaged, errors.Misconfigured)
