"""`rotator run` in a Pod, with a Secret as its target."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.acceptance import stage as stages
from tests.acceptance.stage import wait_for
from tests.peers import apiserver


def test_a_grant_is_published_to_a_secret_and_follows_each_rotation(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage, apiserver.serve() as server:
        account = stage.secret("account", server.token)
        head = f'[kubernetes]\napi = "{server.url}"\ntoken_file = "{account}"\nnamespace = "shop"\n'
        target = '[grants.billing.targets.cluster]\nsecret = "billing-token"\n'
        stage.configure(stage.grant(targets=target), head=head)

        def published() -> str:
            found = server.secrets.get("billing-token")
            return "" if found is None else base64.b64decode(found["data"]["access_token"]).decode()

        with stage.daemon() as daemon:
            first = published()
            assert first == stage.rotator("token", "billing").stdout
            assert stage.rotator("rotate", "--force", "billing").returncode == 0
            wait_for(lambda: published() != first, "the next token")
            # Somebody deletes it; the regular look puts it back.
            del server.secrets["billing-token"]
            wait_for(published, "the Secret again")
            server.token = "second-account-token"
            stage.rotator("rotate", "--force", "billing")
            daemon.wait_logged("does not take the token")
            stage.secret("account", "second-account-token")
            now = stage.rotator("token", "billing").stdout
            wait_for(lambda: published() == now, "the token after the account's own was replaced")
        assert server.token not in daemon.told


def test_outside_a_cluster_it_is_told_before_anything_starts(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        stage.configure(stage.grant(targets='[grants.billing.targets.cluster]\nsecret = "shop/billing"\n'))
        done = stage.rotator("run", "--once")
        assert done.returncode == 78
        assert "no Pod of a cluster" in done.stderr and "Traceback" not in done.stderr
