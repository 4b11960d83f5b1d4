"""The kinds of values that settings hold: what each accepts and within which bounds.

Accepted beyond the plain type, without guessing: numbers written as text (YAML 1.1 reads ``1e-6`` as
one), whole floats for integers, whole numbers as names (a dataset called ``7``), one item for a list.
A truth value is never a number, and no word but ``true`` and ``false`` is a truth value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator


@dataclass(frozen=True)
class Says:
    """Annotates a kind with the words for what it accepts, where type and bounds do not tell.

    Args:
        text: E.g. ``"[low, high] with low <= high"``.
    """

    text: str


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _truth(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("not true or false")
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def items(value: Any) -> Any:
    """Takes one item for a list of it, and nothing that is neither."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, (list, tuple)):  # pydantic would take a set or a generator too
        raise ValueError("not a list")
    return value


def _in_order(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    if pair[0] > pair[1]:
        raise ValueError("not in order")
    return pair


def _holds_an_odd(pair: tuple[int, int]) -> tuple[int, int]:
    if not any(size % 2 for size in range(max(1, pair[0]), pair[1] + 1)):
        raise ValueError("no odd size")
    return pair


_NUMBER, _ITEMS, _IN_ORDER = BeforeValidator(_number), BeforeValidator(items), AfterValidator(_in_order)

Truth = Annotated[bool, BeforeValidator(_truth)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], _ITEMS]

Number = Annotated[float, _NUMBER]
AtLeastZero = Annotated[float, Ge(0), _NUMBER]
AboveZero = Annotated[float, Gt(0), _NUMBER]
Share = Annotated[float, Ge(0), Le(1), _NUMBER]
UpToOne = Annotated[float, Gt(0), Le(1), _NUMBER]
BelowOne = Annotated[float, Ge(0), Lt(1), _NUMBER]
UpToAlmostOne = Annotated[float, Ge(0), Le(0.999), _NUMBER]
#: A colour's deviation, of values from 0 to 1: it divides, so it is never 0.
Deviation = Annotated[float, Gt(0), Le(1), _NUMBER]

#: Upper bounds only keep a slip of the finger from filling the machine before anything looks at it.
Whole = Annotated[int, Ge(-(10**9)), Le(10**9), _NUMBER]
Count = Annotated[int, Ge(1), Le(10**6), _NUMBER]
CountOrZero = Annotated[int, Ge(0), Le(10**6), _NUMBER]
Seed = Annotated[int, Ge(0), Le(2**32 - 1), _NUMBER]  # what numpy takes
Processes = Annotated[int, Ge(0), Le(256), _NUMBER]
Pixels = Annotated[int, Ge(1), Le(4096), _NUMBER]
Side = Annotated[int, Ge(0), Le(1024), _NUMBER]
JpegQuality = Annotated[int, Ge(1), Le(100), _NUMBER]

Range = Annotated[tuple[Number, Number], _ITEMS, _IN_ORDER, Says("[low, high] with low <= high")]
BlockRange = Annotated[
    tuple[CountOrZero, CountOrZero], _ITEMS, _IN_ORDER, Says("[first, last], from 0, first <= last")
]
KernelRange = Annotated[
    tuple[Side, Side],
    _ITEMS,
    AfterValidator(_holds_an_odd),
    Says("[low, high] sizes in pixels with an odd one between them"),
]
Rgb = Annotated[tuple[Share, Share, Share], _ITEMS]
RgbDeviation = Annotated[tuple[Deviation, Deviation, Deviation], _ITEMS]
ClassWeights = Annotated[tuple[AboveZero, AboveZero], _ITEMS]
