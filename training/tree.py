"""Nests of tensors (NamedTuples, tuples, dicts; None where nothing is kept): the few operations that whole states need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_leaves(function: Callable[..., Any], nest: Any, *others: Any) -> Any:
    """The same nest with function(leaf, other's leaf, ...) in each leaf's place. None stays None."""
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {key: map_leaves(function, value, *[other[key] for other in others]) for key, value in nest.items()}
    if isinstance(nest, tuple):
        parts = [map_leaves(function, *values) for values in zip(nest, *others, strict=True)]
        return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)
    return function(nest, *others)


def named_leaves(nest: Any, prefix: str = "") -> dict[str, Tensor]:
    """{path: leaf}, with paths like "memory.hidden" or "states.0.seed"."""
    if nest is None:
        return {}
    if isinstance(nest, dict):
        children = list(nest.items())
    elif isinstance(nest, tuple):
        names = getattr(nest, "_fields", range(len(nest)))
        children = list(zip(names, nest, strict=True))
    else:
        return {prefix: nest}
    named: dict[str, Tensor] = {}
    for name, child in children:
        named |= named_leaves(child, f"{prefix}.{name}" if prefix else str(name))
    return named


def rows_of(nest: Any, rows: Any) -> Any:
    """The given rows of every leaf: a tensor of numbers, or a slice."""
    return map_leaves(lambda leaf: leaf[rows], nest)


def with_rows(nest: Any, rows: Tensor, new: Any) -> Any:
    """A nest in which the given rows are new; the old one stays as it was."""
    return map_leaves(lambda leaf, other: leaf.index_copy(0, rows, other), nest, new)


def where(rows: Tensor, new: Any, old: Any) -> Any:
    """Row by row: new where `rows` [N] is true, old elsewhere."""
    return map_leaves(lambda a, b: a.where(rows.reshape(-1, *[1] * (a.ndim - 1)), b), new, old)


def fill(template: Any, named: dict[str, Tensor], prefix: str = "") -> Any:
    """A nest shaped like `template` from what `named_leaves` gave."""
    if template is None:
        return None
    name = (lambda part: f"{prefix}.{part}") if prefix else str
    if isinstance(template, dict):
        return {key: fill(value, named, name(key)) for key, value in template.items()}
    if isinstance(template, tuple):
        fields = getattr(template, "_fields", range(len(template)))
        parts = [fill(value, named, name(field)) for field, value in zip(fields, template, strict=True)]
        return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)
    return named[prefix]
