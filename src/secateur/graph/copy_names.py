"""Names that make one part of a model a copy of another: ``target_critic`` of ``critic``, ``teacher`` of whatever."""

from __future__ import annotations

import re
from enum import IntEnum

_COPIES = frozenset(
    {"target", "targ", "ema", "momentum", "teacher", "slow", "avg", "average", "averaged", "swa", "polyak", "lagged",
     "delayed", "old", "prev", "previous", "frozen", "ref", "reference", "shadow", "copy", "clone"}
)  # fmt: skip
_ORIGINALS = frozenset(
    {"online", "student", "base", "main", "current", "live", "fast", "local", "eval", "behavior", "behaviour"}
)
_GENERIC = frozenset({"model", "module", "net", "network"})
# In contrastive learning the encoder of the keys follows that of the queries; in an attention they are no copies.
_KEYS = frozenset({"k", "key"})
_QUERIES = frozenset({"q", "query"})
# Beside these, "target" says where something goes.
_SOURCES = frozenset({"source", "src"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


class Kinship(IntEnum):
    """How much two names say that one part is a copy of the other."""

    NONE = 0
    POSSIBLE = 1
    """One is called a copy, and what else the names say doesn't contradict it."""
    NAMED = 2
    """One is called a copy of just what the other is called."""


def is_marked(path: str) -> bool:
    """Whether a name may be that of a copy; of two names that have a kinship, one at least may."""
    return not _words(path.split(".")).isdisjoint(_COPIES | _KEYS)


def kinship(path: str, other: str, *, small: bool) -> Kinship:
    """What the names of two parts of the same structure say.

    Args:
        path: dotted path of one part.
        other: dotted path of the other.
        small: whether they hold so little that their structure may be the same by chance; then names must say more.
    """
    mine, theirs = _words_apart(path, other)
    aside = _COPIES | _ORIGINALS | _GENERIC
    if not small and _one_each(mine, theirs, _KEYS, _QUERIES):
        aside |= _KEYS | _QUERIES
    elif mine & _COPIES == theirs & _COPIES or (mine | theirs) & _SOURCES:
        return Kinship.NONE
    mine, theirs = mine - aside, theirs - aside
    if mine == theirs:
        return Kinship.NAMED
    return Kinship.POSSIBLE if not small and (mine < theirs or theirs < mine) else Kinship.NONE


def _one_each(mine: frozenset[str], theirs: frozenset[str], some: frozenset[str], others: frozenset[str]) -> bool:
    return bool((mine & some and theirs & others) or (theirs & some and mine & others))


def _words_apart(path: str, other: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words of two dotted paths, without the segments that both begin or end with."""
    mine, theirs = path.split("."), other.split(".")
    for end in (0, -1):
        while mine and theirs and mine[end] == theirs[end]:
            del mine[end], theirs[end]
    return _words(mine), _words(theirs)


def _words(segments: list[str]) -> frozenset[str]:
    return frozenset(word.lower() for segment in segments for word in _WORD.findall(segment))
