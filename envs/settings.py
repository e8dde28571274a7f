"""Whether a setting is of the type that its field wants, what a type is to a person, and what to say of a wrong name."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

import numpy as np
from beartype.door import is_bearable

# More names than these in one line nobody reads.
MOST_NAMED = 40


def nearest(name: str, names: Iterable[str]) -> str:
    """What to say to someone who got a name wrong."""
    names = sorted(names)
    by_small_letters = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_small_letters, n=1, cutoff=0.5)
    if close:
        return f"did you mean {by_small_letters[close[0]]!r}?"
    shown = names[:MOST_NAMED]
    return f"there are {', '.join(shown)}{f' and {len(names) - len(shown)} more' if len(names) > len(shown) else ''}"


def kind_of_list(hint: Any) -> Any:
    """The tuple that a type is, or may be; None where it is none."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if typing.get_origin(kind) is tuple), None)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; any other type alone."""
    return (hint,) if typing.get_origin(hint) is tuple else (hint, *typing.get_args(hint))


def checked(value: Any, hint: Any, where: str) -> Any:
    """The value, if it is of the type that the field wants (a whole number will do where a real one is wanted, a list for a tuple).

    Raises ValueError that says where, what is there, and what would work.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list):
        value = tuple(value)
    arguments = typing.get_args(hint)
    if isinstance(value, tuple) and typing.get_origin(hint) is tuple:
        each = [arguments[0]] * len(value) if arguments[-1:] == (Ellipsis,) else list(arguments)
        if len(each) == len(value):
            return tuple(checked(item, kind, where) for item, kind in zip(value, each, strict=True))
    if isinstance(value, tuple):
        for kind in arguments:
            if typing.get_origin(kind) is tuple:
                return checked(value, kind, where)
    kinds = alternatives(hint)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and float in kinds and int not in kinds:
        return float(value)
    if not is_bearable(value, hint) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{where} is {value!r}; want {in_words(hint)}")
    return value


# A type as (one of it, many of it).
_WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "values that are true or false"),
    type(None): ("none", "nones"),
}
_COUNTS = ("no", "one", "two", "three", "four", "five", "six")


def in_words(hint: Any, many: bool = False) -> str:
    """What a type is to a person."""
    if hint in _WORDS:
        return _WORDS[hint][many]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, arguments))
    if typing.get_origin(hint) is not tuple:
        return " or ".join(in_words(kind, many) for kind in arguments) or f"settings of {hint.__name__.removesuffix('Config')}"
    if arguments[-1] is Ellipsis:
        return f"{'lists' if many else 'a list'} of {in_words(arguments[0], many=True)}"
    if len(set(arguments)) == 1:
        count = _COUNTS[len(arguments)] if len(arguments) < len(_COUNTS) else len(arguments)
        return f"{'lists of ' if many else ''}{count} {in_words(arguments[0], many=len(arguments) > 1)}"
    return f"{'lists' if many else 'a list'} of {' and '.join(in_words(kind) for kind in arguments)}"
