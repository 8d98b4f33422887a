"""Layers: environment over file over presets over defaults, each value's origin, and where the file is looked for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from rotator import settings
from rotator.core import pressure
from rotator.core.errors import Misconfigured
from rotator.core.policy import Reuse
from rotator.core.publication import Format
from tests.settings.world import GRANT, PROVIDER, TARGET, VAULT, lines, load, write

BILLING = "ROTATOR_GRANTS__BILLING__"


def test_without_anything_there_are_presets_and_defaults_and_a_warning_that_no_grant_is_configured() -> None:
    loaded = settings.load(None, {})
    assert loaded.settings.state.url == "sqlite:state.db"
    assert loaded.settings.startup.require == "all"
    assert loaded.settings.timing.sweep_every == timedelta(seconds=10)
    assert set(loaded.settings.providers) == {"omnifund", "omnifund-sandbox"}
    assert loaded.settings.providers["omnifund"].reuse is Reuse.HARMLESS
    assert loaded.warnings == ("no grant is configured; add [grants.NAME] with provider and client_id",)


def test_the_presets_point_at_the_providers_own_endpoints() -> None:
    providers = settings.load(None, {}).settings.providers
    assert providers["omnifund"].token_url == "https://secure.gotobilling.com/oauth/v2/token"
    assert providers["omnifund-sandbox"].token_url == "https://sandbox.gotobilling.com/oauth/v2/token"
    assert all(one.scope is None and one.encoding == "form" and one.login_url is None for one in providers.values())


def test_a_provider_that_nobody_described_is_treated_as_one_that_revokes_the_family(tmp_path: Path) -> None:
    provider = load(tmp_path, PROVIDER).settings.providers["example"]
    assert (provider.reuse, provider.grace) == (Reuse.KILLS_FAMILY, timedelta(0))


def test_one_grant_with_a_file_is_configured_by_the_environment_alone() -> None:
    environ = {
        f"{BILLING}PROVIDER": "omnifund",
        f"{BILLING}CLIENT_ID": "12345",
        f"{BILLING}CLIENT_SECRET__CREDENTIAL": "billing.client_secret",
        f"{BILLING}USERNAME": "omnifund_user",
        f"{BILLING}PASSWORD__FILE": "/run/secrets/password",
        f"{BILLING}BUDGET__LIMIT": "2",
        f"{BILLING}TARGETS__APP__FILE": "billing/token",
        f"{BILLING}TARGETS__APP__FORMAT": "json",
        f"{BILLING}TARGETS__APP__MODE": "0640",
        f"{BILLING}TARGETS__APP__GROUP": "billing",
        "ROTATOR_PROVIDERS__OMNIFUND__ROTATE_AT": "0.5",
        "ROTATOR_PROVIDERS__OMNIFUND__ALLOW_PLAIN_HTTP": "true",
        "PATH": "/usr/bin",
    }
    loaded = settings.load(None, environ)
    grant = loaded.settings.grants["billing"]
    assert grant.client_id == "12345"
    assert grant.budget.limit == 2
    assert dict(settings.references(loaded.settings)) == {
        "grants.billing.client_secret": grant.client_secret,
        "grants.billing.password": grant.password,
    }
    assert grant.password is not None
    assert (grant.password.kind, grant.password.value.get_secret_value()) == ("file", "/run/secrets/password")
    target = grant.targets["app"]
    assert (target.file, target.file_format, target.file_mode, target.group) == (
        "billing/token",
        Format.JSON,
        0o640,
        "billing",
    )
    assert loaded.settings.providers["omnifund"].rotate_at == 0.5
    assert loaded.settings.providers["omnifund"].allow_plain_http is True
    assert loaded.sources["grants.billing.password"] == f"environment {BILLING}PASSWORD__FILE"
    assert loaded.path is None
    assert loaded.warnings == ()


def test_one_grant_with_vault_is_configured_by_the_environment_alone() -> None:
    environ = {
        f"{BILLING}PROVIDER": "omnifund-sandbox",
        f"{BILLING}CLIENT_ID": "x",
        f"{BILLING}TARGETS__CLUSTER__VAULT": "inner:secret/oauth/billing",
        f"{BILLING}TARGETS__CLUSTER__FIELDS__token": "$access_token",
        f"{BILLING}TARGETS__CLUSTER__MAX_VERSIONS": "2",
        "ROTATOR_VAULT__INNER__ADDRESS": "https://vault.service:8200",
        "ROTATOR_VAULT__INNER__AUTH__APPROLE__ROLE_ID__CREDENTIAL": "role_id",
        "ROTATOR_VAULT__INNER__AUTH__APPROLE__SECRET_ID__ENV": "SECRET_ID",
    }
    loaded = settings.load(None, environ).settings
    target = loaded.grants["billing"].targets["cluster"]
    assert target.vault == settings.VaultPath("inner", "secret", "oauth/billing")
    assert (target.fields, target.max_versions) == ({"token": "$access_token"}, 2)
    approle = loaded.vault["inner"].auth.approle
    assert approle is not None
    assert (approle.role_id.kind, approle.secret_id.kind, approle.mount) == ("credential", "env", "approle")


def test_environment_wins_over_file_and_file_over_preset_key_by_key_and_each_origin_is_told(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """\
        [providers.omnifund]
        deadline = "5s"
        spacing = "1s"
        """,
        ROTATOR_PROVIDERS__OMNIFUND__SPACING="2s",
    )
    provider = loaded.settings.providers["omnifund"]
    assert (provider.deadline, provider.spacing) == (timedelta(seconds=5), timedelta(seconds=2))
    assert provider.token_url.startswith("https://secure.")
    sources = {key.rpartition(".")[2]: said for key, said in loaded.sources.items() if ".omnifund." in key}
    assert sources["spacing"] == "environment ROTATOR_PROVIDERS__OMNIFUND__SPACING"
    assert sources["deadline"] == "rotator.toml:2"
    assert sources["token_url"] == "preset omnifund"
    assert sources["jitter"] == "default"


def test_limits_of_a_provider_come_from_the_file_or_the_environment_and_have_defaults(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "[providers.omnifund.limits]\nin_flight = 4\n",
        ROTATOR_PROVIDERS__OMNIFUND__LIMITS__PER_SECOND="2.5",
        ROTATOR_PROVIDERS__OMNIFUND_SANDBOX__LIMITS__IN_FLIGHT="2",
    )
    limits = loaded.settings.providers["omnifund"].limits
    assert (limits.in_flight, limits.per_second) == (4, 2.5)
    assert loaded.sources["providers.omnifund.limits.in_flight"] == "rotator.toml:2"
    sandbox = loaded.settings.providers["omnifund-sandbox"].limits
    assert (sandbox.in_flight, sandbox.per_second) == (2, pressure.Limits().per_second)
    shown = {key: (value, source) for key, value, source in settings.effective(loaded)}
    variable = "environment ROTATOR_PROVIDERS__OMNIFUND__LIMITS__PER_SECOND"
    assert shown["providers.omnifund.limits.per_second"] == (2.5, variable)


def test_a_rate_that_is_slow_for_its_grants_is_warned_about(tmp_path: Path) -> None:
    text = "[providers.omnifund.limits]\nper_second = 0.01\n" + "".join(
        f'[grants.g{number}]\nprovider = "omnifund"\nclient_id = "c"\n' for number in range(20)
    )
    (warning,) = load(tmp_path, text).warnings
    assert warning.endswith(
        "rotator.toml:2: providers.omnifund.limits.per_second is slow for 20 grants with tokens of 1h: after an outage "
        "they expire before their turn; better: 0.1 or more, if it is allowed"
    )
    assert load(tmp_path, text.replace("0.01", "0.1")).warnings == ()


def test_a_secret_from_the_environment_replaces_the_files_whole_reference(tmp_path: Path) -> None:
    text = GRANT + 'username = "u"\npassword = { file = "/file" }\n'
    by_table = load(tmp_path, text, ROTATOR_GRANTS__BILLING__PASSWORD__ENV="PASSWORD")
    by_word = load(tmp_path, text, ROTATOR_GRANTS__BILLING__PASSWORD="words")
    for loaded, kind in ((by_table, "env"), (by_word, "literal")):
        password = loaded.settings.grants["billing"].password
        assert password is not None and password.kind == kind
        assert loaded.sources["grants.billing.password"].startswith("environment ROTATOR_")


def test_another_login_from_the_environment_replaces_the_files_and_the_same_is_merged(tmp_path: Path) -> None:
    text = VAULT.replace('{ token_file = "/run/vault/token" }', '{ approle = { role_id = "r", secret_id = "s" } }')
    other = load(tmp_path, text, ROTATOR_VAULT__DEFAULT__AUTH__TOKEN_FILE="/token").settings.vault["default"].auth
    assert other.approle is None and other.token_file == Path("/token")
    same = load(tmp_path, text, ROTATOR_VAULT__DEFAULT__AUTH__APPROLE__SECRET_ID__FILE="/s").settings.vault["default"]
    assert same.auth.approle is not None
    assert (same.auth.approle.role_id.kind, same.auth.approle.secret_id.kind) == ("literal", "file")


def test_a_hyphen_in_a_known_providers_name_is_an_underscore_in_the_environment() -> None:
    loaded = settings.load(None, {"ROTATOR_PROVIDERS__OMNIFUND_SANDBOX__LOGIN_URL": "https://login.example.com/"})
    assert loaded.settings.providers["omnifund-sandbox"].login_url == "https://login.example.com/"
    assert set(loaded.settings.providers) == {"omnifund", "omnifund-sandbox"}


def test_a_name_with_two_underscores_is_reached_from_the_environment(tmp_path: Path) -> None:
    loaded = load(tmp_path, GRANT.replace("billing", "a__b"), ROTATOR_GRANTS__A__B__USERNAME="user")
    assert loaded.settings.grants["a__b"].username == "user"


def test_a_providers_own_words_keep_their_case_in_the_environment() -> None:
    name = "ROTATOR_PROVIDERS__OMNIFUND__ERROR_MAP__BAD_REFRESH_TOKEN"
    loaded = settings.load(None, {name: "invalid_grant"})
    assert loaded.settings.providers["omnifund"].error_map == {"BAD_REFRESH_TOKEN": "invalid_grant"}


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    loaded = load(tmp_path, GRANT + 'username = "u"', ROTATOR_GRANTS__BILLING__USERNAME="")
    assert loaded.settings.grants["billing"].username == "u"


@pytest.mark.parametrize(
    "variable",
    [
        "ROTATOR_CONFIG",
        "ROTATOR_SERVICE_HOST",
        "ROTATOR_SERVICE_PORT_METRICS",
        "ROTATOR_PORT",
        "ROTATOR_PORT_8080_TCP_ADDR",
        "ROTATOR_METRICS_SERVICE_HOST",
        "ROTATOR_METRICS_PORT_9090_TCP_PROTO",
    ],
)
def test_service_links_of_a_kubelet_and_our_own_way_to_the_file_are_no_settings(variable: str) -> None:
    assert settings.load(None, {variable: "tcp://10.0.0.1:80"}).path is None


def test_a_variable_that_holds_a_referenced_secret_is_no_misspelt_setting(tmp_path: Path) -> None:
    text = GRANT + 'client_secret = { env = "ROTATOR_BILLING_SECRET" }'
    loaded = load(tmp_path, text, ROTATOR_BILLING_SECRET="canary")
    assert loaded.settings.grants["billing"].client_secret is not None
    assert lines(tmp_path, GRANT, ROTATOR_BILLING_SECRET="canary")


def test_a_mode_defaults_to_the_owner_alone_or_to_the_named_group(tmp_path: Path) -> None:
    alone = load(tmp_path, TARGET + 'file = "/a"').settings.grants["billing"].targets["app"]
    group = load(tmp_path, TARGET + 'file = "/a"\ngroup = "g"').settings.grants["billing"].targets["app"]
    assert (alone.file_mode, group.file_mode) == (0o600, 0o640)
    assert alone.file_format is Format.RAW


def test_a_target_file_is_normalised(tmp_path: Path) -> None:
    target = load(tmp_path, TARGET + 'file = "a/./b/../token"').settings.grants["billing"].targets["app"]
    assert target.file == "a/token"


@pytest.mark.parametrize(
    ("text", "span"),
    [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("24h", 86400), ("14d", 1209600), ("0s", 0), (" 5 s", 5)],
)
def test_durations_have_units(text: str, span: float) -> None:
    assert settings.duration(text) == timedelta(seconds=span)


def test_effective_values_are_shown_as_they_would_be_written_with_their_origin(tmp_path: Path) -> None:
    loaded = load(tmp_path, TARGET + 'file = "/a"\nmode = "0440"')
    shown = {key: (value, source) for key, value, source in settings.effective(loaded)}
    assert shown["grants.billing.targets.app.mode"] == ("0440", "rotator.toml:7")
    assert shown["grants.billing.budget.apart"] == ("15m", "default")
    assert shown["providers.omnifund-sandbox.token_url"][1] == "preset omnifund-sandbox"
    assert shown.keys() == loaded.sources.keys()


def test_crlf_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "rotator.toml"
    path.write_bytes(GRANT.replace("\n", "\r\n").encode())
    assert settings.load(path, {}).sources["grants.billing.client_id"] == "rotator.toml:4"


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    given, xdg, home = tmp_path / "given", tmp_path / "xdg", tmp_path / "home"
    environ = {
        "CONFIGURATION_DIRECTORY": f"{given}:{tmp_path / 'second'}",
        "XDG_CONFIG_HOME": str(xdg),
        "HOME": str(home),
    }
    found = []
    for folder in (home / ".config/rotator", xdg / "rotator", given):
        folder.mkdir(parents=True)
        write(folder, GRANT)
        found.append(settings.find(environ, None))
    assert found == [home / ".config/rotator/rotator.toml", xdg / "rotator/rotator.toml", given / "rotator.toml"]
    environ["ROTATOR_CONFIG"] = "/named/but/absent.toml"
    assert settings.find(environ, None) == Path("/named/but/absent.toml")
    assert settings.find(environ, Path("mine.toml")) == Path("mine.toml")


def test_a_named_file_that_is_not_there_is_an_error_and_so_is_a_folder(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "absent.toml", "there is no such configuration file"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(Misconfigured, match=words) as caught:
            settings.load(path, {})
        assert str(path) in caught.value.what


def test_the_debug_switch_of_pydantic_settings_is_refused_as_it_logs_secrets() -> None:
    with pytest.raises(Misconfigured, match="PYDANTIC_SETTINGS_DEBUG is set: it logs every secret; unset it"):
        settings.load(None, {"PYDANTIC_SETTINGS_DEBUG": "1"})


def test_where_the_state_is_can_be_told_although_everything_else_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, '[state]\nurl = "sqlite:/srv/state.db"\n[grants.billing]\nclientid = 1\n')
    assert settings.of_state(path, {}).settings.state.url == "sqlite:/srv/state.db"
    there = {"ROTATOR_STATE__URL": "vault:secret/rotator"}
    assert settings.of_state(path, there).settings.state.url == "vault:secret/rotator"
    assert settings.of_state(write(tmp_path, "[grants.billing]\n"), {}).settings.state.url == "sqlite:state.db"
    with pytest.raises(Misconfigured, match="not valid TOML"):
        settings.of_state(write(tmp_path, "[state\n"), {})
    with pytest.raises(Misconfigured, match=r"state\.url is not usable"):
        settings.of_state(write(tmp_path, "[state]\nurl = 7\n"), {})
