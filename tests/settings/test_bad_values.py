"""Every bad input gives one clear line: the place, the dotted key, what is wrong, how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.world import GRANT, PROVIDER, TARGET, VAULT, lines

ONE = "must have exactly one of credential, file, env, vault; it has "

BAD = [
    # unknown, missing, of the wrong kind
    (GRANT + 'cliend_id = "x"', "rotator.toml:5: grants.billing.cliend_id is not a known key; did you mean client_id?"),
    ("[grant.billing]\n", "rotator.toml:1: grant is not a known key; did you mean grants?"),
    (
        '[grants.billing]\nprovider = "omnifund"\n',
        'rotator.toml:1: grants.billing.client_id is missing; add client_id = "…" under [grants.billing]',
    ),
    (
        "[providers.example]\n",
        'rotator.toml:1: providers.example.token_url is missing; add token_url = "https://…" under [providers.example]',
    ),
    (
        '[vault.v]\naddress = "https://v"\n',
        'rotator.toml:1: vault.v.auth is missing; add auth = { token_file = "/…" } under [vault.v]',
    ),
    (GRANT.replace('"1_abc"', "1"), "rotator.toml:4: grants.billing.client_id must be text in quotes"),
    (
        GRANT.replace("1_abc", r"a\nb"),
        "rotator.toml:4: grants.billing.client_id must not be empty or hold a line break or another control character",
    ),
    (GRANT + "budget = 3", "rotator.toml:5: grants.billing.budget must be a table with keys of its own"),
    (
        GRANT.replace("billing", '"Big Bill"'),
        'rotator.toml:2: grants."Big Bill" is not a good name; use the letters a-z, the digits 0-9, _',
    ),
    (
        PROVIDER.replace("example]", "Example]"),
        "rotator.toml:1: providers.Example is not a good name; use the letters a-z, the digits 0-9, _ and -",
    ),
    ('[log]\nformat = "xml"', 'rotator.toml:2: log.format must be one of "auto", "text", "json" or "logfmt"'),
    (PROVIDER + 'reuse = "x"', 'rotator.toml:3: providers.example.reuse must be one of "harmless" or "kills_family"'),
    (
        PROVIDER + 'allow_plain_http = "maybe"',
        "rotator.toml:3: providers.example.allow_plain_http must be true or false",
    ),
    # durations
    (
        "[timing]\nsweep_every = 30",
        'rotator.toml:2: timing.sweep_every needs a unit: write "30s" for seconds, or ms, m, h, d',
    ),
    (
        '[timing]\nsweep_every = "0.5"',
        'rotator.toml:2: timing.sweep_every needs a unit: write "0.5s" for seconds, or ms, m, h, d',
    ),
    (
        '[timing]\nsweep_every = "soon"',
        "rotator.toml:2: timing.sweep_every must be a duration in quotes, "
        'such as "500ms", "30s", "15m", "24h" or "14d"',
    ),
    ('[timing]\nsweep_every = "0s"', "rotator.toml:2: timing.sweep_every must be longer than nothing"),
    (
        '[timing]\nsweep_every = "9999999d"',
        "rotator.toml:2: timing.sweep_every must not be longer than ten years (3650d)",
    ),
    # secrets
    (
        GRANT + 'client_secret = { credentail = "x" }',
        "rotator.toml:5: grants.billing.client_secret.credentail is not a known key; did you mean credential?",
    ),
    (GRANT + "client_secret = {}", f"rotator.toml:5: grants.billing.client_secret {ONE}none"),
    (
        GRANT + 'client_secret = { file = "/a", env = "A" }',
        f"rotator.toml:5: grants.billing.client_secret {ONE}file and env",
    ),
    (
        GRANT + 'client_secret = { file = "secrets/a" }',
        "rotator.toml:5: grants.billing.client_secret must name its file by an absolute path",
    ),
    (
        GRANT + 'client_secret = { credential = "../a" }',
        "rotator.toml:5: grants.billing.client_secret must name its credential as LoadCredential= does: "
        "a file name without / and :",
    ),
    (
        GRANT + 'client_secret = { env = "A-B" }',
        "rotator.toml:5: grants.billing.client_secret must name its environment variable: letters, digits and _",
    ),
    (
        GRANT + 'client_secret = { vault = "secret/omnifund#client_secret" }',
        "rotator.toml:5: grants.billing.client_secret needs the Vault 'default', which is not configured; "
        "add [vault.default] with address, auth",
    ),
    (
        VAULT.replace('{ token_file = "/run/vault/token" }', '{ token = { vault = "a/b#c" } }'),
        "rotator.toml:3: vault.default.auth.token cannot be kept in a Vault itself; "
        "use { file = … } or { credential = … }",
    ),
    (
        GRANT + 'client_secret = { vault = "secret/omnifund" }',
        'rotator.toml:5: grants.billing.client_secret as a vault reference must be "[NAME:]mount/path#field"',
    ),
    (
        GRANT + "client_secret = 12",
        'rotator.toml:5: grants.billing.client_secret must be text in quotes, or a table such as '
        '{ file = "/run/secrets/name" }',
    ),
    (GRANT + 'client_secret = ""', "rotator.toml:5: grants.billing.client_secret must not be empty"),
    (
        GRANT + 'password = { env = "P" }',
        "rotator.toml:2: grants.billing.username is missing; a password needs one: add it under [grants.billing]",
    ),
    # providers
    (
        GRANT.replace('"omnifund"', '"omnifond"'),
        "rotator.toml:3: grants.billing.provider names no known provider; did you mean omnifund?",
    ),
    (
        GRANT.replace('"omnifund"', '"zzz"'),
        "rotator.toml:3: grants.billing.provider names no known provider; known: omnifund, omnifund-sandbox",
    ),
    (
        PROVIDER.replace("https", "http"),
        "rotator.toml:2: providers.example.token_url must be https; "
        "or set providers.example.allow_plain_http = true on a trusted network",
    ),
    (
        PROVIDER.replace("https://", "https://u:p@"),
        "rotator.toml:2: providers.example.token_url must not hold a user or password; secrets have keys of their own",
    ),
    (
        PROVIDER.replace("https://", "login:"),
        'rotator.toml:2: providers.example.token_url must be a URL such as "https://login.example.com/oauth/token"',
    ),
    (PROVIDER.replace("/token", "/#token"), "rotator.toml:2: providers.example.token_url must not hold a #fragment"),
    (
        PROVIDER + "rotate_at = 0.9\njitter = 0.2",
        "rotator.toml:3: providers.example.rotate_at plus jitter must stay below 1, "
        "else a token would expire before it is rotated",
    ),
    (
        PROVIDER + "rotate_at = 0.1\njitter = 0.1",
        "rotator.toml:3: providers.example.rotate_at minus jitter must stay above 0, "
        "else a new token would be rotated at once",
    ),
    (PROVIDER + "rotate_at = 1.5", "rotator.toml:3: providers.example.rotate_at must be less than 1.0"),
    (PROVIDER + 'ca_file = "ca.pem"', "rotator.toml:3: providers.example.ca_file must be an absolute path in quotes"),
    (
        PROVIDER + 'proxy = "proxy:3128"',
        'rotator.toml:3: providers.example.proxy must be "environment" or a URL such as "http://proxy.example.com:3128"',
    ),
    (
        '[providers.a-b]\ntoken_url = "https://a"\n[providers.a_b]\ntoken_url = "https://b"',
        "rotator.toml:3: providers.a_b and providers.a-b are one name in the environment; rename one",
    ),
    (
        PROVIDER + 'auth = "basic"\n' + GRANT.replace("omnifund", "example"),
        "rotator.toml:5: grants.billing.client_secret is missing; "
        'providers.example.auth = "basic" cannot do without it',
    ),
    # limits
    (
        PROVIDER + "limits = { in_flight = 0 }",
        "rotator.toml:3: providers.example.limits.in_flight must be at least 1",
    ),
    (
        PROVIDER + "limits = { in_flight = 257 }",
        "rotator.toml:3: providers.example.limits.in_flight must be at most 256",
    ),
    (
        PROVIDER + 'limits = { in_flight = "many" }',
        "rotator.toml:3: providers.example.limits.in_flight must be a whole number",
    ),
    (
        PROVIDER + "limits = { per_second = 0 }",
        "rotator.toml:3: providers.example.limits.per_second must be more than 0.0",
    ),
    (
        PROVIDER + "limits = { per_second = nan }",
        "rotator.toml:3: providers.example.limits.per_second must be at most 1000.0",
    ),
    (
        PROVIDER + "limits = { per_second = inf }",
        "rotator.toml:3: providers.example.limits.per_second must be at most 1000.0",
    ),
    (
        PROVIDER + 'limits = { per_second = "1/s" }',
        "rotator.toml:3: providers.example.limits.per_second must be a number",
    ),
    (
        PROVIDER + "limits = { persecond = 60 }",
        "rotator.toml:3: providers.example.limits.persecond is not a known key; did you mean per_second?",
    ),
    (PROVIDER + "limits = 3", "rotator.toml:3: providers.example.limits must be a table with keys of its own"),
    # budgets
    (GRANT + "budget = { limit = 17 }", "rotator.toml:5: grants.billing.budget.limit must be at most 16"),
    (GRANT + "budget = { limit = -1 }", "rotator.toml:5: grants.billing.budget.limit must be at least 0"),
    (GRANT + 'budget = { limit = "x" }', "rotator.toml:5: grants.billing.budget.limit must be a whole number"),
    (
        GRANT + 'budget = { apart = "24h" }',
        "rotator.toml:5: grants.billing.budget.apart must be shorter than budget.window",
    ),
    # hooks
    (
        TARGET + 'command = "/usr/bin/app reload"',
        "rotator.toml:6: grants.billing.targets.app.command must be a list of texts, "
        'such as ["/usr/bin/systemctl", "reload", "app"]',
    ),
    (
        TARGET + 'command = ["app", "reload"]',
        "rotator.toml:6: grants.billing.targets.app.command must begin with the absolute path of a program; "
        "no PATH is searched and no shell is asked",
    ),
    (
        TARGET + 'command = ["/usr/bin/app", "a\\nb"]',
        "rotator.toml:6: grants.billing.targets.app.command must hold no control characters and 4096 characters at "
        "most; write a script",
    ),
    (
        TARGET + 'signal = { pid_file = "/run/app.pid", name = "KILL" }',
        "rotator.toml:6: grants.billing.targets.app.signal.name must be one of "
        "HUP, USR1, USR2, TERM, INT, WINCH, CONT, URG",
    ),
    (
        TARGET + 'command = ["/usr/bin/app"]\nmode = "0640"',
        "rotator.toml:7: grants.billing.targets.app.mode is only for a file or directory target; remove it",
    ),
    (
        TARGET + 'file = "a"\ntimeout = "10s"',
        "rotator.toml:7: grants.billing.targets.app.timeout is only for a command or webhook target; remove it",
    ),
    (
        TARGET + 'command = ["/usr/bin/app"]\nafter = ["file"]',
        "rotator.toml:7: grants.billing.targets.app.after names no target that holds the token; there is none",
    ),
    (
        TARGET + 'command = ["/usr/bin/app"]\nafter = "onn"\n[grants.billing.targets.on]\nfile = "a"',
        "rotator.toml:7: grants.billing.targets.app.after names no target that holds the token; did you mean on?",
    ),
    (
        TARGET + 'webhook = "http://hooks.example.com/"',
        "rotator.toml:6: grants.billing.targets.app.webhook must be https; or set "
        "grants.billing.targets.app.allow_plain_http = true on a trusted network",
    ),
    # targets
    (TARGET, "rotator.toml:5: grants.billing.targets.app must have exactly one of file, directory, vault, secret, "
        "command, signal, webhook; "
        "it has none"),
    (
        TARGET + 'file = "a"\nvault = "secret/a"\n' + VAULT,
        "rotator.toml:5: grants.billing.targets.app must have exactly one of file, directory, vault, secret, "
        "command, signal, webhook; "
        "it has file and vault",
    ),
    (
        TARGET + 'file = "a"\nmode = 640',
        'rotator.toml:7: grants.billing.targets.app.mode must be octal text in quotes, such as "0640"; '
        "a bare number would be read as decimal",
    ),
    (
        TARGET + 'file = "a"\nmode = "0888"',
        'rotator.toml:7: grants.billing.targets.app.mode must be three octal digits, such as "0600" or "0640"',
    ),
    (
        TARGET + 'file = "a"\nmode = "0666"',
        "rotator.toml:7: grants.billing.targets.app.mode must let the owner read and nobody else write, "
        'and nothing execute: "0600", "0640", "0440"',
    ),
    (TARGET + 'file = "a/"', "rotator.toml:6: grants.billing.targets.app.file must name a file, not a directory"),
    (
        TARGET + 'file = "a/../../b"',
        "rotator.toml:6: grants.billing.targets.app.file must not lead out of the runtime directory; "
        "write an absolute path",
    ),
    (
        TARGET + 'file = "a"\nfields = { a = "$scope" }',
        "rotator.toml:7: grants.billing.targets.app.fields is only for a vault or secret target; remove it",
    ),
    (
        TARGET + 'vault = "secret/a"\ngroup = "g"\n' + VAULT,
        "rotator.toml:7: grants.billing.targets.app.group is only for a file or directory target; remove it",
    ),
    (
        TARGET + 'vault = "secret/a"\nmode = "0640"\n' + VAULT,
        "rotator.toml:7: grants.billing.targets.app.mode is only for a file or directory target; remove it",
    ),
    (
        TARGET + 'file = "a"\nformat = "template"',
        'rotator.toml:5: grants.billing.targets.app.template is missing; format = "template" needs it',
    ),
    (
        TARGET + 'file = "a"\ntemplate = "$scope"',
        'rotator.toml:7: grants.billing.targets.app.template needs format = "template"',
    ),
    (
        TARGET + 'file = "a"\nformat = "template"\ntemplate = "$acess_token"',
        "rotator.toml:8: grants.billing.targets.app.template cannot be filled; use $name with one of access_token, "
        "token_type, expires_at, expires_at_unix, issued_at, generation, scope, grant; write $$ for $",
    ),
    # Vault
    (
        TARGET + 'vault = "secret/data/a"\n' + VAULT,
        'rotator.toml:6: grants.billing.targets.app.vault must not have "data/" in it: write mount/path, '
        'such as "secret/oauth/billing"',
    ),
    *(
        (
            TARGET + f'vault = "{path}"\n' + VAULT,
            'rotator.toml:6: grants.billing.targets.app.vault must be "[NAME:]mount/path", '
            'such as "secret/oauth/billing", without / at either end',
        )
        for path in ("secret", "/secret/a", "secret/a/", "secret/../a", "secret/a#field", "A B:secret/a")
    ),
    (
        TARGET + 'vault = "secret/{client}/a"\n' + VAULT,
        "rotator.toml:6: grants.billing.targets.app.vault knows only {grant} and {provider} in braces",
    ),
    (
        TARGET + 'vault = "{grant}/a"\n' + VAULT,
        "rotator.toml:6: grants.billing.targets.app.vault may have {grant} and {provider} in the path only, after the "
        "mount",
    ),
    (
        TARGET + 'vault = "secret/a"\nkv = 1\nmax_versions = 2\n' + VAULT,
        "rotator.toml:8: grants.billing.targets.app.max_versions is only for a KV version 2 engine, which keeps "
        "versions; remove it",
    ),
    (
        TARGET + 'file = "a"\nkv = 1\n',
        "rotator.toml:7: grants.billing.targets.app.kv is only for a vault target; remove it",
    ),
    (
        TARGET + 'vault = "inner:secret/a"\n' + VAULT,
        "rotator.toml:6: grants.billing.targets.app.vault needs the Vault 'inner', which is not configured; "
        "add [vault.inner] with address, auth",
    ),
    (
        '[state]\npassword = { credential = "state" }',
        "rotator.toml:2: state.password is that of a role in PostgreSQL, by { credential = … } or { file = … }; else "
        "remove it",
    ),
    (
        '[state]\nurl = "vault:secret/rotator"',
        "rotator.toml:2: state.url needs the Vault 'default', which is not configured; "
        "add [vault.default] with address, auth",
    ),
    (
        VAULT.replace("https", "http"),
        "rotator.toml:2: vault.default.address must be https; "
        "or set vault.default.allow_plain_http = true on a trusted network",
    ),
    (
        VAULT.replace('{ token_file = "/run/vault/token" }', '{ token = "t", token_file = "/t" }'),
        "rotator.toml:3: vault.default.auth must have exactly one of token, token_file, approle, "
        "kubernetes, jwt, userpass, cert; "
        "it has token and token_file",
    ),
    (
        VAULT.replace('{ token_file = "/run/vault/token" }', "{ cert = {} }") + 'cert_file = "/c"\n',
        "rotator.toml:1: vault.default.key_file is missing; auth.cert logs in with both: cert_file and key_file, PEM",
    ),
    (
        VAULT.replace('{ token_file = "/run/vault/token" }', '{ approle = { role_id="r", wrapped=true, role="w" } }'),
        "rotator.toml:3: vault.default.auth.approle.secret_id is missing; wrapped = true needs it",
    ),
    (
        VAULT.replace('{ token_file = "/run/vault/token" }', '{ kubernetes = { role = "r", mount = "/k8s/" } }'),
        "rotator.toml:3: vault.default.auth.kubernetes.mount must be the path of an auth method, such as "
        '"approle", without / at either end',
    ),
    (
        '[state]\nurl = "mysql:x"',
        'rotator.toml:2: state.url must be "sqlite:FILE", "postgresql://HOST/DATABASE" or "vault:[NAME:]MOUNT/PATH"',
    ),
    (
        '[state]\nurl = "postgresql://u:hunter2@db/rotator"',
        "rotator.toml:2: state.url must not hold a password; set state.password, or a file that ?passfile=/… names",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), BAD, ids=range(len(BAD)))
def test_a_bad_input_gives_one_clear_line(tmp_path: Path, text: str, line: str) -> None:
    assert lines(tmp_path, text) == [line]
