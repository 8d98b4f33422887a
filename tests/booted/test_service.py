"""The Debian package under a real systemd: what its unit promises, seen from outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.booted.conftest import AT, CONFIG, TOKEN, Service
from tests.booted.machine import Machine
from tests.peers.emulator import ACCOUNT

Until = Callable[[Callable[[], object], str], None]

CONSUMER = f"""
[Unit]
Requires=rotator.service
After=rotator.service
[Service]
Type=oneshot
RemainAfterExit=yes
DynamicUser=yes
{{groups}}
ExecStart=/bin/cat {TOKEN}
"""
# Reads as an application does, without pause, and says what it met at SIGTERM.
READER = f"""
import signal, sys
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
seen, reads, bad = set(), 0, 0
while not stop:
    reads += 1
    try:
        with open("{TOKEN}") as handle:
            token = handle.read()
    except OSError:
        token = ""
    bad += len(token) < 40
    seen.add(token)
print(reads, len(seen), bad, flush=True)
"""
QUICK = "[Service]\nRestartSec=100ms\n"


def test_the_package_brings_its_user_its_folders_and_its_manual(machine: Machine) -> None:
    assert "token-readers" in machine.say("id", "-nG", "rotator").split()
    modes = machine.say(
        "stat", "-c", "%a %U %n", "/etc/rotator", "/etc/rotator/credentials", "/etc/rotator/rotator.toml"
    )
    assert modes.splitlines() == [
        "755 root /etc/rotator", "700 root /etc/rotator/credentials", "644 root /etc/rotator/rotator.toml",
    ]  # fmt: skip
    assert machine.say("rotator", "version").startswith("rotator ")
    for unit in ("rotator.service", "rotator@profile.service", "rotator-vault.service"):
        assert machine.run("systemd-analyze", "verify", "--man=no", unit).stderr == ""
    for page in ("man1/rotator.1", "man5/rotator.toml.5"):
        assert machine.succeeds("test", "-s", f"/usr/share/man/{page}.gz")


def test_a_consumer_starts_once_its_token_is_there_even_if_the_provider_was_down(
    service: Service, machine: Machine, until: Until
) -> None:
    service.provider.stop()
    machine.write("/etc/systemd/system/app.service", CONSUMER.format(groups="SupplementaryGroups=token-readers"))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "--no-block", "app")
    until(lambda: "0/1 grants published" in machine.unit("rotator", "StatusText")["StatusText"], "a status")
    assert machine.state("rotator") == "activating"
    assert machine.state("app") == "inactive"
    service.provider.start()
    machine.wait_state("app", "active", "failed")
    assert machine.state("app") == "active"
    assert machine.unit("rotator", "NRestarts")["NRestarts"] == "0"
    # The group reads it, and nobody else does.
    assert service.token in [entry["MESSAGE"] for entry in machine.journal(_SYSTEMD_UNIT="app.service")]
    assert machine.say("stat", "-c", "%a %U %G", TOKEN) == "640 rotator token-readers"
    machine.write("/etc/systemd/system/app.service", CONSUMER.format(groups=""))
    machine.run("systemctl", "daemon-reload")
    assert not machine.succeeds("systemctl", "restart", "app")
    assert machine.state("rotator") == "active"


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_needs_no_password_to_go_on(
    service: Service, machine: Machine, until: Until
) -> None:
    service.configure(CONFIG + '[timing]\nsweep_every = "500ms"\n')
    machine.drop_in("rotator.service", f"{QUICK}WatchdogSec=3s\n")
    service.start()
    before, pid = service.token, service.main_pid()
    machine.run("kill", "-STOP", pid)
    until(lambda: machine.unit("rotator", "NRestarts")["NRestarts"] == "1", "the restart")
    machine.wait_state("rotator", "active")
    assert [e for e in machine.journal(UNIT="rotator.service") if "Watchdog timeout" in e["MESSAGE"]]
    assert service.main_pid() != pid
    assert service.token == before
    assert service.provider.count("password") == 1


def test_reload_takes_a_good_file_and_leaves_a_bad_one(service: Service, machine: Machine, until: Until) -> None:
    service.start()
    pid = service.main_pid()
    service.configure(
        f'{CONFIG}[grants.billing.targets.second]\nfile = "second/token"\n'.replace("targets = {", "targets = {")
    )
    told = service.machine.run("rotator", "check", check=False)
    assert told.returncode == 78, "an inline table cannot be extended: TOML's own rule"
    machine.run("systemctl", "reload", "rotator")
    until(lambda: machine.journal(ROTATOR_EVENT="configuration.rejected"), "the rejection in the journal")
    assert machine.state("rotator") == "active"
    service.configure(CONFIG.replace("targets = {", 'targets = { second = { file = "second/token" },'))
    machine.run("systemctl", "reload", "rotator")
    until(lambda: machine.succeeds("test", "-s", "/run/rotator/second/token"), "the new target")
    assert machine.read("/run/rotator/second/token") == service.token
    assert service.main_pid() == pid
    assert service.provider.count("password") == 1


def test_credentials_may_be_encrypted(service: Service, machine: Machine) -> None:
    machine.run("rm", "/etc/rotator/credentials/password")
    place = "/etc/rotator/credentials.encrypted/password"
    machine.run(
        "systemd-creds", "encrypt", "--with-key=host", "--name=encrypted_password", "-", place, given=ACCOUNT.password
    )
    assert ACCOUNT.password not in machine.run("cat", place).stdout
    service.start()
    assert service.health()["published"]


def test_what_init_writes_runs_under_the_unit(service: Service, machine: Machine) -> None:
    machine.run("sh", "-c", "rm /etc/rotator/rotator.toml /etc/rotator/credentials/*")
    machine.write("/srv/secret", ACCOUNT.client_secret, 0o600)
    told = machine.run(
        "rotator", "init", "--no-input", "--provider", "local", "--token-url", f"{AT}/oauth/v2/token", "--client-id",
        ACCOUNT.client_id, "--client-secret-file", "/srv/secret", "--username", ACCOUNT.username, "--password-file",
        "-", "--group", "token-readers", "--trial", given=ACCOUNT.password,
    ).stdout  # fmt: skip
    assert "/etc/rotator/credentials.encrypted/billing.password" in told
    service.start()
    assert service.health()["published"]
    assert machine.say("stat", "-c", "%a %G", TOKEN) == "640 token-readers"


def test_a_stop_during_an_exchange_keeps_what_the_provider_answered(
    service: Service, machine: Machine, until: Until
) -> None:
    service.start()
    before = service.generation()
    service.provider.faults(latency_seconds=2.0)
    machine.run("systemd-run", "--quiet", "--collect", "--no-block", "rotator", "rotate", "--force", "billing")
    until(lambda: any(entry["outcome"] == "in flight" for entry in service.provider.entries()), "the exchange")
    machine.run("systemctl", "stop", "rotator")
    assert machine.unit("rotator", "Result")["Result"] == "success"
    service.provider.faults(latency_seconds=0.0)
    service.start()
    assert service.generation() == before + 1
    assert service.provider.count("password") == 1


def test_killed_in_a_loop_no_reader_notices_and_no_password_is_spent(
    service: Service, machine: Machine, until: Until, figures: Callable[[str], None]
) -> None:
    machine.drop_in("rotator.service", QUICK)
    service.start()
    machine.write("/srv/reader.py", READER)
    machine.run("systemd-run", "--quiet", "--unit=reader", "/usr/bin/python3", "-I", "/srv/reader.py")
    for number in range(1, 11):
        machine.run("systemctl", "kill", "-s", "KILL", "rotator")
        until(lambda number=number: machine.unit("rotator", "NRestarts")["NRestarts"] == str(number), "the restart")
        machine.wait_state("rotator", "active")
        machine.run("rotator", "rotate", "--force", "billing")
    machine.run("systemctl", "stop", "reader")
    (told,) = [e["MESSAGE"] for e in machine.journal(_SYSTEMD_UNIT="reader.service", _TRANSPORT="stdout")]
    reads, tokens, bad = map(int, told.split())
    figures(f"systemctl kill -s KILL ten times: {reads} reads, {tokens} tokens, {bad} torn or missing")
    assert (tokens, bad) == (11, 0)
    assert service.provider.count("password") == 1


def test_a_wrong_configuration_is_told_once_and_not_started_again(service: Service, machine: Machine) -> None:
    service.configure(CONFIG.replace("client_id", "clientid"))
    assert not machine.succeeds("systemctl", "start", "rotator")
    shown = machine.unit("rotator", "ActiveState", "ExecMainStatus", "NRestarts", "Result")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0", "Result": "exit-code"}
    told = [e["MESSAGE"] for e in machine.journal(_SYSTEMD_UNIT="rotator.service")]
    assert any("grants.billing.clientid" in line for line in told), told
    assert not any("Traceback" in line for line in told)


def test_the_journal_has_every_field_of_an_event_and_no_secret(service: Service, machine: Machine) -> None:
    service.start()
    machine.run("rotator", "rotate", "--force", "billing")
    rotated = machine.journal(ROTATOR_EVENT="token.rotated")
    assert [(e["ROTATOR_GRANT"], e["ROTATOR_KIND"], e["ROTATOR_GENERATION"]) for e in rotated] == [
        ("billing", "password", "1"), ("billing", "refresh_token", "2"),
    ]  # fmt: skip
    for entry in rotated:
        assert entry["PRIORITY"] == "5" and re.fullmatch(r"[0-9a-f]{32}", entry["MESSAGE_ID"])
        assert entry["_SYSTEMD_UNIT"] == "rotator.service" and entry["SYSLOG_IDENTIFIER"] == "rotator"
    whole = json.dumps(machine.journal(_SYSTEMD_UNIT="rotator.service"))
    for secret in (ACCOUNT.password, ACCOUNT.client_secret, service.token):
        assert secret not in whole


def test_a_consumer_that_cannot_look_is_told_by_a_path_unit(service: Service, machine: Machine, until: Until) -> None:
    examples = "/usr/share/doc/rotator/examples"
    machine.run("cp", f"{examples}/app-token.path", f"{examples}/app-reload.service", "/etc/systemd/system/")
    machine.write(
        "/etc/systemd/system/app.service",
        "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo told of $$(wc -c < " + TOKEN + ")'\n",
    )
    machine.run("systemctl", "daemon-reload")
    service.start()
    machine.run("systemctl", "start", "app", "app-token.path")
    machine.run("rotator", "rotate", "--force", "billing")
    heard = f"told of {len(service.token)}"
    until(lambda: heard in [e["MESSAGE"] for e in machine.journal(_SYSTEMD_UNIT="app.service")], "the reload of app")


def test_a_command_and_a_signal_work_inside_the_units_sandbox(service: Service, machine: Machine, until: Until) -> None:
    """Under the unit as it is: the command runs, is told, and has nothing of the service; systemd stays closed."""
    machine.write(
        "/usr/local/bin/hook",
        "#!/bin/sh\nenv > $HOME/hook.env && cat /run/rotator/billing/token > $HOME/hook.read\n"
        "systemctl restart app 2> $HOME/hook.systemctl\nexit 0\n",
        0o755,
    )
    # A process of the same user as a unit of its own.
    machine.write("/srv/nudged.sh", "trap 'echo nudged' HUP\necho $$ > $1\nwhile :; do sleep 0.1; done\n")
    machine.write(
        "/etc/systemd/system/app.service",
        "[Service]\nUser=rotator\nRuntimeDirectory=app\nExecStart=/bin/sh /srv/nudged.sh /run/app/pid\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "app")
    until(lambda: machine.succeeds("test", "-s", "/run/app/pid"), "the pid file")
    hooks = (
        'command = { command = ["/usr/local/bin/hook"] }, '
        'nudge = { signal = { pid_file = "/run/app/pid", name = "HUP" } },'
    )
    service.configure(CONFIG.replace("targets = {", f"targets = {{ {hooks}"))
    service.start()

    def told() -> list[object]:
        targets = service.health()["grants"]["billing"]["targets"]
        return [targets[name]["generation"] for name in ("command", "nudge")]

    until(lambda: told() == [1, 1], "both hooks")
    home = machine.say("sh", "-c", "echo ~rotator")
    environ = dict(line.split("=", 1) for line in machine.read(f"{home}/hook.env").splitlines())
    assert set(environ) - {"PWD", "SHLVL", "_"} == {
        "PATH", "LANG", "HOME", "ROTATOR_GRANT", "ROTATOR_TARGET", "ROTATOR_GENERATION", "ROTATOR_ISSUED_AT",
        "ROTATOR_EXPIRES_AT", "ROTATOR_EXPIRES_AT_UNIX", "ROTATOR_ID",
    }  # fmt: skip
    assert machine.read(f"{home}/hook.read") == service.token, "its file was there before it"
    assert machine.read(f"{home}/hook.systemctl"), "systemd takes no orders from it: that is what .path units are for"
    until(lambda: "nudged" in [e["MESSAGE"] for e in machine.journal(_SYSTEMD_UNIT="app.service")], "the signal")
    machine.run("rotator", "rotate", "--force", "billing")
    until(lambda: told() == [2, 2], "both hooks again")


def test_profiles_live_side_by_side(service: Service, machine: Machine) -> None:
    machine.run("mkdir", "-p", "/etc/rotator/shop/credentials", "/etc/rotator/shop/credentials.encrypted")
    machine.run("sh", "-c", "cp /etc/rotator/credentials/* /etc/rotator/shop/credentials/")
    machine.write("/etc/rotator/shop/rotator.toml", CONFIG)
    service.start()
    machine.run("systemctl", "start", "rotator@shop")
    assert len(machine.read("/run/rotator/shop/billing/token")) == len(service.token)
    shops, ours = machine.read("/run/rotator/shop/billing/token"), service.token
    assert shops != ours
    # A command goes to the daemon whose configuration it reads, or tries to.
    config = "/etc/rotator/shop/rotator.toml"
    machine.run("rotator", "rotate", "--force", "billing", "--config", config)
    rotated = machine.read("/run/rotator/shop/billing/token")
    assert (rotated != shops, service.token) == (True, ours)
    machine.write(config, "half a configur")
    broken = machine.run("rotator", "rotate", "--force", "billing", "--config", config)
    assert "the daemon goes on with the configuration of before" in broken.stderr
    assert (machine.read("/run/rotator/shop/billing/token") != rotated, service.token) == (True, ours)
    machine.run("systemctl", "stop", "rotator@shop")
    assert machine.succeeds("test", "-s", "/run/rotator/shop/billing/token"), "what is published outlives a stop"


def test_a_command_that_needs_a_credential_prints_the_line_that_gives_it(service: Service, machine: Machine) -> None:
    service.start()
    before, folders = service.token, ("stat", "-c", "%a %U:%G %n", "/run/rotator", "/var/lib/rotator")
    modes = machine.say(*folders)
    service.credential("seal", "5e" * 32)
    service.configure(f'state.seal.key = {{ credential = "seal" }}\n{CONFIG}')
    outside = machine.run("rotator", "rekey", check=False)
    told, mend = outside.stderr.splitlines()
    assert (outside.returncode, told) == (
        78, "rotator: state.seal.key is a credential, and credentials are given to the service only",
    )  # fmt: skip
    done = machine.run("sh", "-c", mend.removeprefix("rotator: to mend it: "))
    assert "1 grant(s) sealed anew" in done.stdout + done.stderr
    assert service.token == before, "what is published stays while a command has the unit's folders"
    assert machine.say(*folders) == modes
    assert service.generation() == 1
    machine.run("rotator", "rotate", "--force", "billing")
    assert service.provider.count("password") == 1


def test_installed_by_its_own_word_and_taken_away_again(machine: Machine) -> None:
    place = "/usr/local/lib/systemd/system/rotator.service"
    told = machine.run("rotator", "install", "--systemd")
    assert f"written  {place}" in told.stdout and "warning" not in told.stderr, told.stderr
    assert " /usr/bin/rotator check && systemctl enable --now rotator" in told.stderr
    assert machine.unit("rotator", "FragmentPath")["FragmentPath"] == place
    again = machine.run("rotator", "install", "--systemd").stdout.splitlines()
    assert set(again) <= {"kept  /etc/rotator/rotator.toml"}
    told = machine.run("rotator", "uninstall")
    assert "warning" not in told.stderr, told.stderr
    assert machine.unit("rotator", "FragmentPath")["FragmentPath"] == "/lib/systemd/system/rotator.service"


def test_an_upgrade_keeps_the_chain_and_a_purge_leaves_nothing(service: Service, machine: Machine) -> None:
    service.start()
    before, pid = service.token, service.main_pid()
    machine.run("dpkg", "-i", "--force-confold", "/srv/rotator.deb")
    machine.wait_state("rotator", "active")
    assert service.main_pid() != pid, "whatever runs, runs the new version"
    assert (service.token, service.provider.count("password")) == (before, 1)
    machine.run("apt-get", "purge", "-y", "-q", "rotator")
    for place in ("/etc/rotator", "/var/lib/rotator", "/run/rotator", "/usr/lib/rotator", "/usr/bin/rotator"):
        assert not machine.succeeds("test", "-e", place), place
    machine.run("apt-get", "install", "-y", "-q", "/srv/rotator.deb")


@pytest.mark.parametrize("command", [("rotator", "status"), ("rotator", "token", "billing")])
def test_only_root_and_the_service_itself_give_orders(
    service: Service, machine: Machine, command: tuple[str, ...]
) -> None:
    service.start()
    assert machine.succeeds(*command)
    refused = machine.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command, check=False)
    assert refused.returncode != 0
    assert service.token not in refused.stdout + refused.stderr and "Traceback" not in refused.stderr
