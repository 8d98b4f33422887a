"""docs/messages.md is written by this test from the events themselves, and held against them."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from rotator.core import events
from rotator.frontends import telemetry

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
HEAD = """\
# Messages

What `rotator` tells, by name. A name, its level and its `MESSAGE_ID` stay as they are from version to version; the
sentences may change. This page is written by `make docs` from the events themselves.

Under systemd every event is a journal entry of its own with these fields beside `MESSAGE`, `PRIORITY` and
`SYSLOG_IDENTIFIER=rotator`; on a pipe it is a line of JSON (or logfmt: `log.format`) with the fields in lower case and
without the prefix; on a terminal it is a sentence.

```console
$ journalctl -u rotator -p err                                   # what a person should look at
$ journalctl -u rotator ROTATOR_GRANT=billing                    # one grant
$ journalctl ROTATOR_EVENT=token.rotated -o json                 # every rotation, with its fields
$ journalctl MESSAGE_ID={example}       # the same by id
```

Levels are those of syslog(3): *critical* wants a person now, *error* soon, *warning* tells a fault that is being dealt
with, *notice* a change that is as it should be. What was told within the last minute is counted (`ROTATOR_REPEATED`)
rather than told again, but for what is critical. `log.foreign` is what a library said; it carries `ROTATOR_LOGGER`.

| event | level | fields | `MESSAGE_ID` |
|---|---|---|---|
"""


def told() -> list[type[events.Event]]:
    def below(cls: type[events.Event]) -> list[type[events.Event]]:
        return [one for child in cls.__subclasses__() for one in (child, *below(child))]

    return sorted(
        (one for one in below(events.Event) if "name" in vars(one) and one.__module__ == events.__name__),
        key=lambda one: one.name,
    )


def page() -> str:
    rows = [
        (one.name, one.level.name.lower(), [field.name for field in dataclasses.fields(one) if field.name != "at"])
        for one in told()
    ]
    rows.append(("log.foreign", "its own", ["logger", "exception"]))
    lines = [
        f"| `{name}` | {level} | "
        + " ".join(f"`{telemetry.field_name('outcome' if field == 'cls' else field)}`" for field in fields)
        + f" | `{telemetry.message_id(name)}` |"
        for name, level, fields in sorted(rows)
    ]
    return HEAD.format(example=telemetry.message_id("token.rotated")) + "\n".join(lines) + "\n"


def test_the_page_of_messages_says_what_is_told() -> None:
    if os.environ.get("DOCS") == "write":
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "write it anew: make docs"


def test_a_message_id_is_one_events_alone_and_does_not_change() -> None:
    ids = [telemetry.message_id(one.name) for one in told()]
    assert len(set(ids)) == len(ids) > 25
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)
    assert telemetry.message_id("token.rotated") == "433d6d7efdafa3dc621139ff3bdc9a56", "operators filter by it"
