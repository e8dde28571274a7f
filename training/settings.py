"""Settings as values: frozen dataclasses to and from JSON, and `name.name=value` overrides from a command line.

Nothing here runs code that a file names: a JSON object's "type" may only be a dataclass of this project's own settings modules, or of a
module that a person has named (`agent.memory=my_module:MyConfig`) or trusts the file to name. Every failure is one line that names the
field, the value and what would work.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import sys
import sysconfig
import traceback
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beartype.door import is_bearable

from agents.co_players import CO_PLAYERS
from envs import GAMES
from envs.game import Game
from envs.settings import alternatives, checked, in_words, kind_of_list, nearest
from memory import MEMORIES
from memory.memory import MemoryConfig
from training.schemes import SCHEMES


class BadInput(ValueError):
    """Something a person wrote is wrong; the message is one line that says what would work."""


class NotTrusted(BadInput):
    """A file names a module that nobody has named or trusts it to name."""


ALGORITHMS: dict[str, str] = {
    "ppo": "training.algorithms:PPO",
    "a2c": "training.algorithms:A2C",
    "supervised": "training.algorithms:Supervised",
    "straight_through": "training.algorithms:StraightThrough",
}

# Fields that can be chosen by name on the command line, and from which dictionary.
_BY_NAME: dict[str, Mapping[str, str]] = {"game": GAMES, "memory": MEMORIES, "core": MEMORIES, "scheme": SCHEMES, "algorithm": ALGORITHMS}
# Of these, whoever is chosen keeps what the one before was set to, so that memories are compared at one width, algorithms at one rate.
_KEEPS = ("memory", "core", "algorithm")
_OUR_MODULES = {"training.experiment", "training.curriculum", "agents.agent", "agents.auxiliary", "envs.third_party"} | {
    path.partition(":")[0] for names in (*_BY_NAME.values(), CO_PLAYERS) for path in names.values()
}

# The environment's variables that say which modules of somebody else's files may name ("*" among them is for all), and where those are that
# a person named, for processes that are started later.
_TRUSTS, _PATH = "COTERIE_TRUSTS", "COTERIE_PATH"
# How the names of files begin that are not somebody else's.
_OURS = [str(Path(__file__).parents[1] / package) + os.sep for package in ("agents", "envs", "memory", "training")]
_NOT_THEIRS = ("<", *_OURS, *(sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "purelib")))
# What goes into a field, and what it has to be if it is somebody else's.
_ELSEWHERE: dict[str, tuple[str, type]] = {"game": ("game", Game), "memory": ("memory", MemoryConfig), "core": ("memory", MemoryConfig)}


def load(path: str) -> Any:
    """The object that `module:name` says."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def trust(module: str = "*") -> None:
    """From now on files may name this module, or all, in this process and those that it starts."""
    os.environ[_TRUSTS] = ",".join(sorted(_trusted() | {module}))


def is_trusted(module: str) -> bool:
    """Whether files may name it."""
    return not _trusted().isdisjoint({module, "*"})


def _trusted() -> set[str]:
    return set(filter(None, os.environ.get(_TRUSTS, "").split(",")))


def load_elsewhere(module: str, name: str, what: str) -> Any:
    """An object of somebody else's module, which is where they are or where Python looks for modules anyway. Raises BadInput.

    Where they are comes last, so that no file there takes the place of another module. Processes that are started later find it, too.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
        os.environ[_PATH] = os.pathsep.join(filter(None, (os.environ.get(_PATH), here)))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    # Whatever somebody else's code makes of being imported: it is named.
    except (Exception, SystemExit) as error:
        package = module.partition(".")[0]
        is_nowhere = isinstance(error, ModuleNotFoundError) and error.name == package
        hint = f"; want {package}.py, or a package of that name, in {here} or installed" if is_nowhere else ""
        raise BadInput(f"no {what} is called {module}:{name}: {in_one_line(error)}{hint}") from error
    return found


def in_one_line(error: BaseException) -> str:
    """What went wrong in somebody else's code, and where in it."""
    passed = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_NOT_THEIRS)]
    where = f" ({Path(passed[-1].filename).name}, line {passed[-1].lineno})" if passed else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def is_elsewhere(head: str, rest: str) -> bool:
    """Whether `head:rest` is written as an object of a module."""
    return bool(rest) and all(part.isidentifier() for text in (head, rest) for part in text.split("."))


def names_modules(settings: Any) -> bool:
    """Whether settings, or what a file has of them, are of anybody else's modules, which a file has to be trusted to name."""
    data = to_json(settings)
    if isinstance(data, dict):
        module = str(data["type"]).partition(":")[0] if "type" in data else None
        return module not in (None, *_OUR_MODULES) or any(map(names_modules, data.values()))
    return isinstance(data, list) and any(map(names_modules, data))


def check_survives(settings: Any) -> None:
    """Raises BadInput for settings of somebody else's that cannot be written to a file and read again, before anything begins with them."""
    if not names_modules(settings):
        return
    try:
        read = from_json(json.loads(json.dumps(to_json(settings))), trusts=True)
    except Exception as error:
        raise BadInput(f"these settings cannot be kept in a file: {in_one_line(error)}; want numbers, texts and tuples of them") from error
    if read != settings:
        raise BadInput(f"these settings come out of a file as {read!r}, not as {settings!r}; want numbers, texts and tuples of them")


def lookup(names: Mapping[str, str], name: str, what: str) -> Any:
    """The entry called `name` of a dictionary such as `GAMES`. Raises BadInput with the nearest match."""
    if name not in names:
        raise BadInput(f"no {what} is called {name!r}; {nearest(name, names)}")
    return load(names[name])


def to_json(value: Any) -> Any:
    """Plain JSON values; a dataclass becomes an object whose "type" is `module:Class`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(data: Any, trusts: bool = False) -> Any:
    """The value that `to_json` wrote (lists come back as tuples). Raises BadInput on an unknown type, field or value.

    trusts: whether somebody else's module may be imported because the data names it. PettingZoo's own always may.
    """
    if isinstance(data, list):
        return tuple(from_json(item, trusts) for item in data)
    if not isinstance(data, dict):
        return data
    if "type" not in data:
        return {key: from_json(item, trusts) for key, item in data.items()}
    path = str(data["type"])
    module, _, name = path.partition(":")
    if not is_elsewhere(module, name):
        raise BadInput(f"settings of type {path!r} do not exist; want module:dataclass")
    if module not in _OUR_MODULES and not trusts and not is_trusted(module):
        raise NotTrusted(f"settings of type {path!r} are not Coterie's; say --trust (in Python trust=True) if you know {module}")
    is_ours = module in _OUR_MODULES
    kind = getattr(importlib.import_module(module), name, None) if is_ours else load_elsewhere(module, name, "settings")
    # What a module has from another one goes by that one's name, with what is asked there.
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module):
        raise BadInput(f"settings of type {path!r} do not exist in this version")
    if not is_ours:
        trust(module)
    fields = {key: from_json(item, trusts) for key, item in data.items() if key != "type"}
    game = str(fields.get("module"))
    if module == "envs.third_party" and not is_pettingzoos(game) and not trusts and not is_trusted(game):
        raise BadInput(f"the file wants to import {fields.get('module')!r}, which is not PettingZoo's; say --trust if you know it")
    return build(kind, fields, name)


def is_pettingzoos(module: str) -> bool:
    """Whether a third-party game's module is PettingZoo's own, which a file may name."""
    return module.split(".")[0] == "pettingzoo"


def build(kind: type, fields: Mapping[str, Any], where: str) -> Any:
    """A dataclass from checked fields. Raises BadInput, its message starting with `where`."""
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise BadInput(f"{where} has no setting {name!r}; {nearest(name, known)}")
    try:
        values = {name: checked(value, hints[name], f"{where}.{name}") for name, value in fields.items()}
    except ValueError as error:
        raise BadInput(str(error)) from error
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {error}") from error


def configured(factory: Callable[..., Any], text: str, where: str) -> Any:
    """What a factory makes of `setting=value,setting=value` ("" for none). Raises BadInput, its message starting with `where`."""
    known = inspect.signature(factory).parameters
    hints = typing.get_type_hints(factory)
    chosen = {}
    for assignment in split_outside_brackets(text, ","):
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise BadInput(f"{where}: {assignment!r} is no setting; write {where}:name=value")
        if name not in known:
            raise BadInput(f"{where} has no setting {name!r}; {nearest(name, known) if known else 'it has none'}")
        chosen[name] = _typed(value, hints[name], f"{where}.{name}", known[name].default)
    try:
        return factory(**chosen)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from error


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand in no bracket; none where the text is empty."""
    parts, depth = [""] if text else [], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class _Assignment(NamedTuple):
    """`path=text`, as a person wrote it. names: what is left of the path, below the settings in hand."""

    path: str
    names: tuple[str, ...]
    text: str


def override(settings: Any, *assignments: str) -> Any:
    """Settings with every `name.name=value` carried out together. Values are JSON; anything else is text. Raises BadInput.

    Each dataclass is replaced once, with all of its new fields, so what is right only together can be given in any order; nothing can be
    given twice. Where a list is wanted `[5,15]`, `(5,15)`, `5,15` and `stay,forward` are one. A
    field that holds settings itself (game, agent.memory, agent.memory.core, scheme, algorithm) takes a name from its dictionary, with
    settings if need be (`game=chicken:rounds=50,noise=0.1`); those given apart come after. Games and memories may be somebody else's,
    `my_module:MyConfig` or `my_module:MyConfig:width=64`, imported from where the person is. A memory or an algorithm that takes the place
    of another keeps that one's settings, as far as it has them too and with the same default (a width, a learning rate).
    """
    return _replaced(settings, _each_once([_read(assignment) for assignment in assignments]))


def _read(assignment: str, above: str = "") -> _Assignment:
    path, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals:
        raise BadInput(f"{assignment!r} is no setting; write name=value, for example seed=3 or game.rounds=50")
    return _Assignment(above + path, tuple(path.split(".")), text)


def _each_once(assignments: list[_Assignment]) -> list[_Assignment]:
    """The same. Raises BadInput for what is given twice: in a long line one of the two is a slip."""
    given: dict[str, str] = {}
    for each in assignments:
        if each.path in given:
            raise BadInput(f"{each.path} is given twice: {given[each.path]} and {each.text}; want it once")
        given[each.path] = each.text
    return assignments


def _replaced(settings: Any, assignments: list[_Assignment], kept: Mapping[str, Any] | None = None, path: str = "settings") -> Any:
    """kept: new values of fields that nothing is assigned to. path: where these are."""
    known = [field.name for field in dataclasses.fields(settings)]
    of_field: dict[str, list[_Assignment]] = {}
    for each in assignments:
        if each.names[0] not in known:
            above = each.path.removesuffix(".".join(each.names))
            deeper = [f"{above}{path}.{'.'.join(each.names)}" for path in _homes(settings, each.names)]
            hint = f"did you mean {' or '.join(map(repr, deeper))}?" if deeper else nearest(each.names[0], known)
            raise BadInput(f"no setting is called {each.path!r}: {type(settings).__name__} has no {each.names[0]!r}; {hint}")
        of_field.setdefault(each.names[0], []).append(each)
    changes = {**(kept or {}), **{name: _changed(settings, name, several) for name, several in of_field.items()}}
    try:
        return dataclasses.replace(settings, **changes)
    except (ValueError, TypeError, AssertionError) as error:
        # Only what it takes for this complaint is named.
        for name in list(changes):
            fewer = {other: value for other, value in changes.items() if other != name}
            if _complaint(settings, fewer) == str(error):
                changes = fewer
        at_fault = " ".join(f"{each.path}={each.text}" for name in changes for each in of_field.get(name, []))
        as_before = ", ".join(f"{name}={_as_typed(changes[name])}" for name in changes if name not in of_field)
        said = " with ".join(filter(None, (at_fault or path, as_before and f"{as_before} as before")))
        raise BadInput(f"{said}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _homes(settings: Any, names: tuple[str, ...]) -> list[str]:
    """The paths, below these, of settings in which there is what these names lead to."""
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found += [field.name] if _leads_somewhere(value, names) else []
            found += [f"{field.name}.{path}" for path in _homes(value, names)]
    return found


def _leads_somewhere(settings: Any, names: tuple[str, ...]) -> bool:
    for name in names:
        if not dataclasses.is_dataclass(settings) or all(field.name != name for field in dataclasses.fields(settings)):
            return False
        settings = getattr(settings, name)
    return True


def _shared(old: Any, new: Any) -> dict[str, Any]:
    """What `old` was set to, of the settings that both have, of the same default; what it falls to only with what it falls from."""
    defaults = {field.name: field.default for field in dataclasses.fields(old)} if dataclasses.is_dataclass(old) else {}
    same = {field.name for field in dataclasses.fields(new) if field.name in defaults and field.default == defaults[field.name]}
    kept = [name for name in same if not name.startswith("final_") or name.removeprefix("final_") in same]
    return {name: getattr(old, name) for name in sorted(kept) if getattr(old, name) != getattr(new, name)}


def _complaint(settings: Any, changes: Mapping[str, Any]) -> str:
    try:
        dataclasses.replace(settings, **changes)
    except (ValueError, TypeError, AssertionError) as error:
        return str(error)
    return ""


def _changed(settings: Any, name: str, assignments: list[_Assignment]) -> Any:
    """A field's new value. assignments: to the field itself, and to settings within it."""
    value = getattr(settings, name)
    own: list[_Assignment] = []
    kept: dict[str, Any] = {}
    for each in assignments:
        if len(each.names) > 1:
            continue
        if name in _BY_NAME:
            value, more = _named(name, each.text)
            kept = _shared(getattr(settings, name), value) if name in _KEEPS else {}
            own = _each_once([_read(assignment, f"{each.path}.") for assignment in split_outside_brackets(more, ",")])
        else:
            value = _typed(each.text, typing.get_type_hints(type(settings))[name], each.path, getattr(settings, name))
    within = own + [each._replace(names=each.names[1:]) for each in assignments if len(each.names) > 1]
    if within and not dataclasses.is_dataclass(value):
        raise BadInput(f"no setting is called {within[0].path!r}: {name} is {value!r} and has no settings of its own")
    return _replaced(value, within, kept, f"{assignments[-1].path}={assignments[-1].text}") if within or kept else value


def _named(field: str, text: str) -> tuple[Any, str]:
    """What goes by a name, and the settings that follow behind its colon.

    Behind `scheme=NAME:` stand co-players, and behind `game=pettingzoo:` a module. A game or a memory may be `module:object`.
    """
    name, _, more = text.partition(":")
    if field == "game" and name == "pettingzoo" and more:
        return build(load("envs.third_party:ThirdPartyGame"), {"module": more}, "game"), ""
    place, _, rest = more.partition(":")
    if name not in _BY_NAME[field] and field in _ELSEWHERE and is_elsewhere(name, place):
        return made_elsewhere(name, place, *_ELSEWHERE[field]), rest
    found = lookup(_BY_NAME[field], name, field)
    if field != "scheme" or not more:
        return found(), more
    if "co_players" not in inspect.signature(found).parameters:
        raise BadInput(f"scheme {name!r} takes no co-players, but {more!r} was given")
    try:
        return found(co_players=more), ""
    except ValueError as error:
        raise BadInput(f"scheme={name}: {error}") from error


def made_elsewhere(module: str, name: str, what: str, protocol: type) -> Any:
    """What somebody else's dataclass, or function, makes without arguments: settings. Raises BadInput. Files may name the module then."""
    where = f"{what} {module}:{name}"
    factory = load_elsewhere(module, name, what)
    try:
        made = factory()
        is_frozen = dataclasses.is_dataclass(made) and getattr(made, "__dataclass_params__").frozen  # noqa: B009
        is_one = is_frozen and isinstance(made, protocol)
        typing.get_type_hints(type(made))
    except Exception as error:
        raise BadInput(f"{where} cannot be made without settings: {in_one_line(error)}") from error
    if not is_one:
        raise BadInput(f"{where} is a {type(made).__name__}; want a frozen dataclass that is a {protocol.__name__} (docs/adding.md)")
    trust(type(made).__module__)
    return made


def _typed(text: str, hint: Any, where: str, now: Any = None) -> Any:
    """What a person typed for a setting, as the setting wants it. now: what it is, for an example. Raises BadInput."""
    # "none", which is nothing elsewhere, is a name like any other where a name is wanted.
    value = text if hint is str and text in _NAMED_VALUES else _parse(text)
    try:
        # A single number is one, where either will do, before it is a list of one.
        is_single = float in alternatives(hint) and isinstance(value, int | float)
        wants_list = kind_of_list(hint) and not is_single and not is_bearable(value, hint)
        return checked(_as_list(text, hint) if wants_list else value, hint, where)
    except ValueError as error:
        told = text if isinstance(value, tuple) else repr(value)
        such = f", such as {_as_typed(now)}" if isinstance(now, tuple) and now else ""
        if ":" in text and "=" in text and isinstance(value, str):
            such += "; settings of one thing have commas between them"
        if dataclasses.is_dataclass(hint):
            such = f", one by one: {where}.NAME=value"
        raise BadInput(f"{where} is {told}; want {in_words(hint)}{such}") from error


def _parse(text: str) -> Any:
    try:
        return from_json(json.loads(text))
    except json.JSONDecodeError:
        return _NAMED_VALUES.get(text, text)


# Beside JSON's.
_NAMED_VALUES = {"None": None, "none": None, "True": True, "False": False}


def _as_list(text: str, hint: Any) -> Any:
    """Where a list is wanted `(5,15)`, `5,15` and `stay,forward` are one; a single value stands for a list of any length."""
    kind, value = kind_of_list(hint), _parse(text)
    if kind is None or isinstance(value, tuple):
        return value
    arguments = typing.get_args(kind)
    is_free = arguments[-1] is Ellipsis and not kind_of_list(arguments[0])
    is_bracketed = len(split_outside_brackets(text, ",")) == 1 and text[:1] + text[-1:] in ("()", "[]")
    parts = [part.strip() for part in split_outside_brackets(text[1:-1] if is_bracketed else text, ",")]
    if len(parts) == 1 and not (is_bracketed or is_free):
        return value
    each = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else arguments
    return tuple(_as_list(part, kind) for part, kind in zip(parts, each, strict=True)) if len(parts) == len(each) else value


def told(settings: Any, above: str = "") -> list[str]:
    """Every setting as a line that could be typed, `name.name=value`; the kinds of those that hold settings as `name: Kind`."""
    lines = []
    for field in dataclasses.fields(settings):
        path, value = f"{above}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{path}: {type(value).__name__}", *told(value, f"{path}.")]
        else:
            text = json.dumps(to_json(value), separators=(",", ":")) if isinstance(value, tuple) else str(value)
            lines.append(f"{path}={text}")
    return lines


def _as_typed(value: Any) -> str:
    """A value as a person would type it; the beginning of a long list."""
    if isinstance(value, tuple):
        parts = [_as_typed(item) for item in value]
        return f"[{','.join(parts if sum(map(len, parts)) < 60 else parts[:3])}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
