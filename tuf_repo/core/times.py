"""Times as TUF writes them: RFC 3339, UTC, whole seconds; seconds since 1970 inside."""

from __future__ import annotations

from datetime import UTC, datetime

DAY = 86_400
HOUR = 3_600
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def to_text(seconds: float) -> str:
    """`2026-01-31T12:00:00Z`; fractions are cut off."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_FORMAT)


def from_text(text: str) -> int:
    """Read what `to_text` wrote.

    Raises:
        ValueError: it is not such a time.
    """
    return int(datetime.strptime(text, _FORMAT).replace(tzinfo=UTC).timestamp())
