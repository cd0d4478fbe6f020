"""Text fit to be printed and stored: no credentials, and no control characters that a terminal would obey."""

from __future__ import annotations

import re
from typing import Any

#: of a URI, what stands before the host; a password may hold an `@` of its own
_USER = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'"<>]*@""")
_BARE = re.compile(r"""(?<![\w.@:/-])[^\s/:@'"<>]+:[^\s/@'"<>]+@(?=[\w.-]+:\d)""")  # user:password@host:port
_QUERY = re.compile(r"""([?&;][\w.-]*(?:pass|pwd|token|secret|key|credential|signature)[\w.-]*=)[^&\s'"<>]+""", re.IGNORECASE)
_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\"]+", re.IGNORECASE)
#: C0 and C1 controls but tab and newline, and what turns the direction of text
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def without_credentials(text: str) -> str:
    """The text with user and password taken out of every URI in it, and secret query values replaced by `***`."""
    if "://" in text:
        text = _QUERY.sub(r"\1***", _USER.sub(r"\1", text))
    if "@" in text:
        text = _BARE.sub("", text)
    return _HEADER.sub(r"\1***", text)


def printable(text: str) -> str:
    """The text with control characters replaced by `?`, newlines and tabs apart."""
    return _CONTROL.sub("?", text)


def clean_record(record: dict[str, Any]) -> None:
    """Take credentials out of what a record says in words: reason, traceback, warnings. In place, before it is sealed."""
    for key in ("reason", "traceback"):
        if isinstance(record.get(key), str):
            record[key] = without_credentials(record[key])
    record["warnings"] = [without_credentials(str(warning)) for warning in record.get("warnings") or ()]
