"""The messages of the search for inputs on which an artifact and its source, or MNN, may differ."""

from __future__ import annotations

import msgspec

from mnnprep.model.messages import CaseFile
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.model.signature import Signature

ORIGIN_SEARCHED = "searched from seed "  # what the origin of a case begins with that a search found


class SearchJob(msgspec.Struct, frozen=True, kw_only=True):
    """Write inputs that take the values inside ``model`` as far as they get to ``directory``.

    ``cases`` are those that were compared, of one size, which the new ones have, too. The same job gives the
    same inputs.
    """

    model: ReadPath
    cases: list[CaseFile]
    signature: Signature
    seed: int
    directory: WritePath


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """The ``cases`` made, without outputs, the plainest first.

    Of the ``values`` inside the model that were watched, ``widened`` got further than the compared cases took
    them; ``tried`` counts the runs.
    """

    cases: list[CaseFile]
    values: int = 0
    widened: int = 0
    tried: int = 0


class DecisionsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Look whether ``model`` decides otherwise on ``moved`` than on ``case``, by a value that has rounding.

    ``moved`` are the inputs of ``case``, changed in their last digits.
    """

    model: ReadPath
    case: CaseFile
    moved: list[CaseFile]
    directory: WritePath


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that decide otherwise.

    To ``exact`` ones the inputs' own values come, moved and chosen but not computed; what comes to
    ``rounded`` ones was computed, so that another kernel may decide otherwise and be right.
    """

    exact: list[str]
    rounded: list[str]
