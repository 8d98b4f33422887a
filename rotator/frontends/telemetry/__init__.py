"""Log lines: what the bus tells and what third-party libraries log, in one form, on one stream.

Secrets stay out three times: events carry none, a Secret in a field shows its mask, and what looks like a credential is
taken out of every line, more strictly where a third party wrote it.
"""

from rotator.frontends.telemetry.foreign import redact, setup
from rotator.frontends.telemetry.forms import Form, choose, is_colourful, is_journal, level
from rotator.frontends.telemetry.journal import Journal, field_name, message_id
from rotator.frontends.telemetry.lines import LogListener

__all__ = [
    "Form",
    "Journal",
    "LogListener",
    "choose",
    "field_name",
    "is_colourful",
    "is_journal",
    "level",
    "message_id",
    "redact",
    "setup",
]
