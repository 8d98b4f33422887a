"""Problems between tables, of variables and of the file itself, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotator import settings
from rotator.core.errors import Misconfigured
from tests.settings.world import GRANT, PROVIDER, TARGET, VAULT, lines, load


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('file = "billing/token"', 'file = "billing/./x/../token"'),
        ('file = "/run/token"', 'file = "//run/token"'),
        ('vault = "secret/a"', 'vault = "default:secret/a"'),
        ('vault = "secret/{grant}/{provider}"', 'vault = "secret/billing/omnifund"'),
    ],
)
def test_two_targets_may_not_write_one_place(tmp_path: Path, first: str, second: str) -> None:
    other = '[grants.other]\nprovider = "omnifund"\nclient_id = "x"\n[grants.other.targets.b]\n'
    key = first.split()[0]
    assert lines(tmp_path, f"{TARGET}{first}\n{other}{second}\n{VAULT}") == [
        f"rotator.toml:11: grants.other.targets.b.{key} is also written by grants.billing.targets.app; "
        "give other a place of its own"
    ]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80", "rotator.localhost"])
def test_plain_http_to_this_machine_is_fine(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, GRANT + PROVIDER.replace("https://login.example.com", f"http://{host}")).warnings == ()


def test_plain_http_that_is_allowed_is_warned_about(tmp_path: Path) -> None:
    text = GRANT + PROVIDER.replace("https", "http") + "allow_plain_http = true"
    assert [line.partition(": ")[2] for line in load(tmp_path, text).warnings] == [
        "providers.example.token_url is not encrypted: credentials and tokens travel in clear"
    ]


@pytest.mark.parametrize(
    ("keys", "warned"),
    [
        ('grace = "10s"', True),
        ('grace = "30s"', True),
        ('grace = "10s"\ndeadline = "10s"', True),
        ('grace = "10s"\ndeadline = "9s"', False),
        ('grace = "31s"', False),
        ('grace = "0s"', False),
        ('grace = "10s"\nreuse = "harmless"', False),
    ],
)
def test_a_deadline_that_outlasts_the_grace_is_warned_about(tmp_path: Path, keys: str, warned: bool) -> None:
    warnings = [line.partition(": ")[2] for line in load(tmp_path, GRANT + PROVIDER + keys).warnings]
    assert warnings == warned * [
        "providers.example.grace is over when an answer that never comes is given up at providers.example.deadline, "
        "so the one forgiven resend comes too late; make deadline shorter than grace"
    ]


def test_all_problems_are_told_at_once_also_those_between_tables(tmp_path: Path) -> None:
    text = """\
    [log]
    levle = "info"
    [providers.broken]
    token_url = 5
    [grants.a]
    provider = "broken"
    [grants.b]
    provider = "nobody"
    client_id = "x"
    [grants.b.targets.one]
    file = "t"
    mode = 600
    [grants.b.targets.two]
    file = "u"
    template = "x"
    """
    keys = [line.split()[1] for line in lines(tmp_path, text, ROTATOR_LGO__LEVEL="x")]
    assert keys == [
        "ROTATOR_LGO__LEVEL",
        "log.levle",
        "providers.broken.token_url",
        "grants.a.client_id",
        "grants.b.targets.one.mode",
        "grants.b.provider",
        "grants.b.targets.two.template",
    ]


@pytest.mark.parametrize(
    ("variable", "mend"),
    [
        ("ROTATOR_GRANTS__BILLING__CLIEND_ID", "did you mean ROTATOR_GRANTS__BILLING__CLIENT_ID?"),
        ("ROTATOR_GRANTS_BILLING_CLIENT_ID", "did you mean ROTATOR_GRANTS__BILLING__CLIENT_ID?"),
        ("ROTATOR_GRANTS__NEW__PASWORD__FILE", "did you mean ROTATOR_GRANTS__NEW__PASSWORD__FILE?"),
        ("ROTATOR_LOG_LEVEL", "did you mean ROTATOR_LOG__LEVEL?"),
        ("ROTATOR_PROVIDERS__OMNIFUND_SANDBOX__TOKEN", "did you mean ROTATOR_PROVIDERS__OMNIFUND_SANDBOX__TOKEN_URL?"),
        ("ROTATOR_", "unset it, or see config/rotator.toml for every key"),
    ],
)
def test_a_misspelt_variable_is_an_error_that_names_the_nearest(tmp_path: Path, variable: str, mend: str) -> None:
    assert lines(tmp_path, GRANT, **{variable: "x"}) == [f"environment {variable} is not a known setting; {mend}"]


def test_a_variable_that_names_a_table_says_so(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, GRANT, ROTATOR_GRANTS__BILLING__BUDGET="3")
    assert line == (
        "environment ROTATOR_GRANTS__BILLING__BUDGET names a whole table; set its keys, such as "
        "ROTATOR_GRANTS__BILLING__BUDGET__APART"
    )


def test_two_variables_for_one_secret_exclude_each_other(tmp_path: Path) -> None:
    (line,) = lines(
        tmp_path, GRANT, ROTATOR_GRANTS__BILLING__CLIENT_SECRET="x", ROTATOR_GRANTS__BILLING__CLIENT_SECRET__FILE="/y"
    )
    assert line == (
        "environment ROTATOR_GRANTS__BILLING__CLIENT_SECRET and ROTATOR_GRANTS__BILLING__CLIENT_SECRET__FILE "
        "exclude each other; unset one of them"
    )


def test_a_bad_value_from_the_environment_names_the_variable(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, GRANT, ROTATOR_TIMING__SWEEP_EVERY="10")
    assert line.startswith("environment ROTATOR_TIMING__SWEEP_EVERY: timing.sweep_every needs a unit")


def test_a_key_that_is_missing_in_the_environment_is_told_as_a_variable() -> None:
    with pytest.raises(Misconfigured) as caught:
        settings.load(None, {"ROTATOR_GRANTS__BILLING__PROVIDER": "omnifund"})
    assert str(caught.value) == "grants.billing.client_id is missing; set ROTATOR_GRANTS__BILLING__CLIENT_ID"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[a]\nb = \n", "rotator.toml:2: not valid TOML: invalid value"),
        ("[log]\nlevel = 'a'\nlevel = 'b'\n", "rotator.toml:3: not valid TOML: cannot overwrite a value"),
        ("[log]\nlevel = '''a\n", "rotator.toml:2: not valid TOML: expected \"'''\""),
        ("a = " + "[" * 5000, "rotator.toml:1: not valid TOML: "),
    ],
)
def test_bad_toml_gives_file_and_line(tmp_path: Path, text: str, line: str) -> None:
    (only,) = lines(tmp_path, text)
    assert only.startswith(line)


def test_what_is_not_utf8_gives_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rotator.toml"
    path.write_bytes(b"[log]\nlevel = '\xff'\n")
    with pytest.raises(Misconfigured, match=r"rotator\.toml:2: not UTF-8 text; save the file as UTF-8"):
        settings.load(path, {})


def test_a_line_is_found_behind_multi_line_text_dotted_and_quoted_keys(tmp_path: Path) -> None:
    text = TARGET + (
        'file = "a"\nformat = "template"\ntemplate = """\n[log]\nlevel = "x"\n"""\n'
        '["log"]\nlevel = "debgu"\n[timing]\n"sweep_every" = 1\n[providers]\nomnifund.deadline = 3\n'
    )
    assert [line.split(" ")[:2] for line in lines(tmp_path, text)] == [
        ["rotator.toml:13:", "log.level"],
        ["rotator.toml:15:", "timing.sweep_every"],
        ["rotator.toml:17:", "providers.omnifund.deadline"],
    ]
