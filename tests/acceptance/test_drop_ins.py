"""A grant that is dropped into a folder is at work at once, and one that is taken out is not any more."""

from __future__ import annotations

from pathlib import Path

from rotator import settings
from tests.acceptance import stage as stages
from tests.acceptance.stage import wait_for

# Far beyond the patience of any test: what happens here happens by being noticed.
TIMING = '[timing]\nsweep_every = "1h"\nverify_every = "1h"\n'


def test_a_drop_in_that_comes_breaks_is_mended_and_goes(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        stage.configure(timing=TIMING)
        folder = stage.config.parent / settings.DROP_INS
        folder.mkdir()
        with stage.daemon() as daemon:
            path, token = folder / "reports.toml", stage.folder / "run" / "reports" / "token"
            whole = stage.grant("reports")
            # In two pieces, as an editor may: half of it is nothing that anybody should be told of.
            with path.open("w") as handle:
                handle.write(whole[: len(whole) // 2])
                handle.flush()
                handle.write(whole[len(whole) // 2 :])
            wait_for(token.exists, "the token of the new grant")
            assert "configuration.rejected" not in daemon.told
            path.write_text(whole.replace("client_id", "clientid"))
            wait_for(lambda: "grants.d/reports.toml:" in daemon.told, "a word about the broken one")
            assert stage.status()["grants"].keys() == {"billing", "reports"}
            # At night, before anybody mends it, the rest can be looked after.
            for words in (
                ["rotate", "billing", "--force"],
                ["token", "reports"],
                ["wait", "reports", "--timeout", "9s"],
            ):
                assert stage.rotator(*words).returncode == 0, words
            path.write_text(whole)
            wait_for(lambda: daemon.told.count("configuration.reloaded") == 2, "the mended one")
            path.unlink()
            wait_for(lambda: stage.status()["grants"].keys() == {"billing"}, "the grant to go")
            assert token.exists(), "its token holds on until it expires"
