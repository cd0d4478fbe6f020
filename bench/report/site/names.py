"""Names of files and addresses inside of the site, from text that nobody has checked."""

from __future__ import annotations

import hashlib
import re

from bench.report.escape import slug

_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")


def file_name(text: object) -> str:
    """Letters, digits and hyphens, which need no quoting in an address and name a file on every system.

    Text that is such a name already stays; other text gets a digest, so that two names never meet in one file.
    """
    name = str(text)
    if _SAFE.fullmatch(name):
        return name
    return f"{slug(name)[:60]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
