"""What may be shown to people as it is: the names of keys, of fields and of path patterns.

Rule: a text that could look like another, or like none, is no name. People decide by what they see.
"""

from __future__ import annotations

import re
import unicodedata

NAME_MAX_CHARS = 60
NAME_KIND = f"1 to {NAME_MAX_CHARS} letters of one script, digits, single spaces or . ' - _ @"
"""What a name is, for errors."""
VALUE_MAX_CHARS = 200
_SIGNS = frozenset("0123456789 .'-_@")
_MARKS_MAX = 4
"""On one letter: more of them cover the lines above and below."""
# Letters and marks that nobody sees: fillers, joiners, selectors of a variant.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_WRITTEN_TOGETHER = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"CJK", "HANGUL"}),
)
_PATTERN = re.compile(r"[A-Za-z0-9_*?/.-]+")
_FIELD = re.compile(r"x-[A-Za-z0-9_.-]+")
_DELEGATION = re.compile(r"[a-z][a-z0-9-]{0,30}")


def is_name(text: str) -> bool:
    """Whether a key may carry this as its name.

    1. Not too long, in the one usual spelling, and a space stands between words only.
    2. Letters, marks on letters, ASCII digits and a few signs; each of them can be seen.
    3. The letters are of one script: others have some that look the same.
    """
    if not 0 < len(text) <= NAME_MAX_CHARS or "" in text.split(" "):
        return False
    if unicodedata.normalize("NFKC", text) != text or _INVISIBLE.search(text):  # 1.
        return False
    scripts: set[str] = set()
    marks = _MARKS_MAX  # None may stand first.
    for char in text:  # 2.
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Mc"} else 0 if category[0] == "L" else _MARKS_MAX
        if category[0] == "L":
            scripts.add(unicodedata.name(char, "?").split(" ")[0])
        elif char not in _SIGNS and (category not in {"Mn", "Mc"} or marks > _MARKS_MAX):
            return False
    return len(scripts) <= 1 or any(scripts <= each for each in _WRITTEN_TOGETHER)  # 3.


def is_pattern(text: str) -> bool:
    """Whether a path pattern can be shown so that nobody takes it for another, or for several."""
    return len(text) <= VALUE_MAX_CHARS and _PATTERN.fullmatch(text) is not None


def is_field(text: str) -> bool:
    """Whether an extra field of a role may be called so."""
    return len(text) <= NAME_MAX_CHARS and _FIELD.fullmatch(text) is not None


def is_delegation(text: str) -> bool:
    """Whether a role below `targets` may be called so."""
    return _DELEGATION.fullmatch(text) is not None
