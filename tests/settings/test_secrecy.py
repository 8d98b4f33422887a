"""No secret in anything that prints: settings, dumps, warnings, and errors about the keys beside it."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from rotator import settings
from rotator.core.errors import Misconfigured
from tests.settings.world import load, write

CANARY = "hunter2-canary"
TEXT = f"""\
[providers.omnifund]
proxy = "http://user:{CANARY}@proxy.example.com:3128"
[grants.billing]
provider = "omnifund"
client_id = "x"
client_secret = "{CANARY}"
username = "u"
password = "{CANARY}"
[vault.default]
address = "https://vault.example.com"
auth = {{ token = "{CANARY}" }}
"""


def test_nothing_that_was_loaded_prints_a_secret(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXT, ROTATOR_GRANTS__OTHER__CLIENT_SECRET=CANARY, ROTATOR_GRANTS__OTHER__CLIENT_ID="x",
                  ROTATOR_GRANTS__OTHER__PROVIDER="omnifund")  # fmt: skip
    shown = [
        repr(loaded), str(loaded), repr(loaded.settings), str(loaded.settings), repr(dict(loaded.sources)),
        repr(loaded.warnings), repr(settings.effective(loaded)), loaded.settings.model_dump_json(),
        repr(loaded.settings.model_dump()), repr(list(settings.references(loaded.settings))),
    ]  # fmt: skip
    assert not [text for text in shown if CANARY in text]
    secret = loaded.settings.grants["billing"].client_secret
    assert secret is not None and secret.value.get_secret_value() == CANARY


def test_a_literal_is_warned_about_with_the_better_way(tmp_path: Path) -> None:
    warnings = [line.partition(": ")[2] for line in load(tmp_path, TEXT).warnings]
    assert warnings == [
        f'{key} is written out where others may read it; better: {last} = {{ credential = "{name}" }} '
        f'or {{ file = "/run/secrets/{name}" }}'
        for key, last, name in (
            ("grants.billing.client_secret", "client_secret", "billing.client_secret"),
            ("grants.billing.password", "password", "billing.password"),
            ("vault.default.auth.token", "token", "default.token"),
        )
    ]


@pytest.mark.parametrize(
    "change",
    [
        ('client_id = "x"', "unknown = 1"),
        ('username = "u"', ""),
        ('username = "u"', f'username = "u"\n{CANARY} = = 1'),
        ('username = "u"', f'username = "u"\nbudget = "{CANARY}"'),
        ('client_id = "x"', f'client_id = "{CANARY}\\n"'),
        ('provider = "omnifund"', f'provider = "{CANARY}"'),
        (f'client_secret = "{CANARY}"', f'client_secret = {{ file = "{CANARY}" }}'),
        (f'client_secret = "{CANARY}"', f'client_secret = {{ env = "{CANARY}" }}'),
        (f'client_secret = "{CANARY}"', f'client_secret = ["{CANARY}"]'),
        (f'client_secret = "{CANARY}"', f'client_secret = {{ vault = "{CANARY}" }}'),
        ("http://user:", "ftp://user:"),
        ('auth = { token = "', 'auth = { tokn = "'),
        ('address = "https://', f'address = "https://u:{CANARY}@'),
        ("[vault.default]", f'[state]\nurl = "postgresql://u:{CANARY}@db/x"\n[vault.default]'),
        ("[vault.default]", f'[timing]\nsweep_every = "{CANARY}"\n[log]\nlevel = "{CANARY}"\n[vault.default]'),
    ],
)
def test_no_error_quotes_a_secret(tmp_path: Path, change: tuple[str, str]) -> None:
    assert change[0] in TEXT
    path = write(tmp_path, TEXT.replace(*change))
    environ = {"ROTATOR_GRANTS__BILLING__PASSWROD": CANARY, "ROTATOR_TIMING__VERIFY_EVERY": CANARY}
    with pytest.raises(Misconfigured) as caught:
        settings.load(path, environ)
    told = [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    assert not [text for text in told if CANARY in text]
    assert "input_value" not in "".join(told) and "pydantic" not in caught.value.what


def test_models_by_themselves_hide_their_input_too() -> None:
    from pydantic import ValidationError

    for model in (settings.Settings, settings.Grant, settings.Auth, settings.Vault, settings.Target):
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"nonsense": CANARY})
        assert CANARY not in str(caught.value) + repr(caught.value)


def test_settings_cannot_be_changed_and_never_read_the_environment_by_themselves() -> None:
    made = settings.Settings()
    with pytest.raises(ValueError, match="frozen"):
        made.log = made.log  # type: ignore[misc]
    assert made.providers == {}
