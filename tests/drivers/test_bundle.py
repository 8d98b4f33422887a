"""A directory whose files are replaced as one."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from rotator.core.errors import Misconfigured
from rotator.core.publication import Format, Found
from rotator.drivers import files
from tests.contracts.publishers import NOW, publication

FORMS = {"token": Format.RAW, "token.json": Format.JSON, "header": Format.HEADER}


def settle(publisher: files.BundlePublisher, generation: int) -> Found:
    return asyncio.run(publisher.settle(publication(generation), NOW)).found


def test_the_layout_is_that_of_a_kubelet(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "bundle"
    publisher = files.BundlePublisher(folder, FORMS, mode=0o640, make_parents=True)
    publisher.check()
    settle(publisher, 1)
    assert {path.name for path in folder.iterdir() if path.is_symlink()} == {"..data", *FORMS}
    assert os.readlink(folder / "token") == "..data/token"
    assert (folder / "token").stat().st_mode & 0o777 == 0o640
    assert publisher.location == f"file:{folder}/..data"
    assert isinstance(files.at(folder / "..data"), files.BundlePublisher)


def test_a_reader_that_resolves_once_never_sees_two_generations_nor_none(tmp_path: Path) -> None:
    publisher = files.BundlePublisher(tmp_path, FORMS)
    settle(publisher, 1)
    reads, done = 0, threading.Event()
    wrong: list[str] = []

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            try:
                folder = (tmp_path / "..data").resolve()
                token = (folder / "token").read_text()
                described = json.loads((folder / "token.json").read_text())["access_token"]
                by_name = (tmp_path / "token").read_text()
            except (OSError, ValueError) as error:
                wrong.append(repr(error))
                continue
            reads += 1
            if token != described or not by_name.startswith("token-of-"):
                wrong.append(f"{token} beside {described}")

    reader = threading.Thread(target=read)
    reader.start()

    async def publish() -> None:
        for generation in range(2, 300):
            await publisher.settle(publication(generation), NOW)
            # A reader is promised the generation before, not the one before that: it has read once since.
            before = reads + len(wrong)
            while reads + len(wrong) == before:
                await asyncio.sleep(0)

    asyncio.run(publish())
    done.set()
    reader.join()
    assert wrong == []
    assert reads >= 298


def test_only_the_generation_before_is_kept(tmp_path: Path) -> None:
    publisher = files.BundlePublisher(tmp_path, FORMS)
    for generation in range(1, 6):
        settle(publisher, generation)
    kept = [path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(kept) == 2
    assert sorted((folder / "token").read_text() for folder in kept) == [
        publication(number).value.reveal() for number in (4, 5)
    ]


@pytest.mark.parametrize("name", ["token", "token.json"])
def test_one_file_that_is_altered_is_all_put_right(tmp_path: Path, name: str) -> None:
    publisher = files.BundlePublisher(tmp_path, FORMS)
    settle(publisher, 1)
    (tmp_path / name).write_text("{}")
    assert settle(publisher, 1) is Found.ALTERED
    assert settle(publisher, 1) is Found.CURRENT
    (tmp_path / name).unlink()
    assert settle(publisher, 1) is Found.ALTERED
    (tmp_path / "token").chmod(0o644)
    assert settle(publisher, 1) is Found.ALTERED
    assert settle(publisher, 1) is Found.CURRENT


def test_a_plain_file_from_before_gives_way_and_strangers_stay(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of a file target")
    (tmp_path / "notes").write_text("of somebody")
    publisher = files.BundlePublisher(tmp_path, FORMS)
    settle(publisher, 1)
    assert (tmp_path / "token").is_symlink()
    mark = asyncio.run(publisher.settle(publication(1), NOW)).mark
    fewer = files.BundlePublisher(tmp_path, {"token": Format.RAW})
    assert asyncio.run(fewer.settle(publication(1), NOW)).found is Found.ALTERED
    assert not (tmp_path / "header").exists() and not (tmp_path / "header").is_symlink()
    assert asyncio.run(files.at(tmp_path / "..data").remove(mark)) is False
    mark = asyncio.run(fewer.settle(publication(1), NOW)).mark
    assert asyncio.run(files.at(tmp_path / "..data").remove(mark)) is True
    assert {path.name for path in tmp_path.iterdir()} == {"notes"}


def test_a_directory_that_cannot_be_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"does not exist|cannot be"):
        files.BundlePublisher(tmp_path / "none", FORMS).check()
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be a file"):
        files.BundlePublisher(tmp_path / "file" / "bundle", FORMS, make_parents=True).check()
