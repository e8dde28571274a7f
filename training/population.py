"""Agents on disk and co-players by name. An agent is two files of data: `agent.safetensors` (weights), `agent.json` (settings, spaces).

Loading one never executes code from the file: settings may only name this project's own dataclasses, weights are plain tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from agents.agent import Agent, AgentConfig
from agents.co_players import CO_PLAYERS
from agents.occupant import Occupant
from envs.settings import nearest
from training.files import write_atomically
from training.foreign import Foreign
from training.settings import (
    BadInput,
    NotTrusted,
    configured,
    from_json,
    in_one_line,
    is_elsewhere,
    is_trusted,
    load,
    load_elsewhere,
    to_json,
)

FORMAT = 1


def save_agent(agent: Agent, directory: Path) -> None:
    """Writes agent.safetensors, then agent.json with its digest; each atomically. Both hold the settings: no weight's shape tells them."""
    settings = to_json(agent.config)
    tensors = {name: value.detach().cpu().contiguous() for name, value in agent.state_dict().items()}
    weights = save_tensors(tensors, {"coterie": json.dumps({"agent": settings})})
    about = {
        "format": FORMAT,
        "agent": settings,
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "agent.safetensors", weights)
    write_atomically(directory / "agent.json", json.dumps(about, indent=1).encode())


def load_agent(directory: str | Path, device: torch.device | str = "cpu", trust: bool = False) -> Agent:
    """The agent that `save_agent` wrote, ready to play. Raises BadInput naming the file and what is wrong with it.

    trust: whether somebody else's module may be imported although it is a file that names it, as the agent's memory; files may name it
    from then on.
    """
    directory = Path(directory)
    about_file, weights_file = directory / "agent.json", directory / "agent.safetensors"
    for file in (about_file, weights_file):
        if not file.is_file():
            inside = sorted(path.parent.relative_to(directory) for path in directory.glob("population/*/agent.json"))
            hint = f"; it is a run, whose agents are {', '.join(map(str, inside))}" if inside else ""
            raise BadInput(f"{directory} is no agent: it has no {file.name}{hint}")
    try:
        about = json.loads(about_file.read_text())
        config = from_json(about["agent"], trust)
        spaces = space_from_json(about["observation_space"]), space_from_json(about["action_space"])
        found, digest = about["format"], about["weights_sha256"]
    except NotTrusted as error:
        raise NotTrusted(f"{about_file} cannot be used: {error}") from error
    # Whatever a damaged file makes of itself: it is the file that is wrong.
    except Exception as error:
        raise BadInput(f"{about_file} is damaged: {error}") from error
    if found != FORMAT:
        raise BadInput(f"{about_file} has format {found}; this version reads format {FORMAT}")
    if not isinstance(config, AgentConfig) or not isinstance(spaces[0], gym.spaces.Dict):
        raise BadInput(f"{about_file} is damaged: it does not describe an agent")
    data = weights_file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadInput(f"{weights_file} is damaged: its contents do not match the digest in agent.json")
    try:
        with safe_open(weights_file, framework="pt") as opened:
            trained = json.loads((opened.metadata() or {}).get("coterie", "{}")).get("agent")
    except (safetensors.SafetensorError, AttributeError, ValueError) as error:
        raise BadInput(f"{weights_file} is damaged: {error}") from error
    check_same_settings(config, trained, about_file, weights_file)
    try:
        agent = config.build(*spaces, seed=0)
    except Exception as error:
        raise BadInput(f"{about_file} cannot be used: {in_one_line(error)}") from error
    try:
        weights = load_tensors(data)
        agent.load_state_dict(weights)
    except (RuntimeError, safetensors.SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"{weights_file} does not fit the agent that agent.json describes: {first}") from error
    check_finite(weights, f"agent {weights_file}")
    return agent.to(device).eval()


def frozen_in(experiment: Any) -> dict[str, str]:
    """{name: digest} of an experiment's co-players that are trained agents: of their settings and weights, as they are on disk now."""
    files = {name: Path(name) / "agent.json" for name in experiment.scheme.co_players(experiment.game) if is_an_agents_path(name)}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def is_an_agents_path(name: str) -> bool:
    """Whether a co-player's name is a trained agent's directory. Scripts' settings can be longer than any path."""
    return name.partition(":")[0] not in (*CO_PLAYERS, "axelrod") and os.path.isfile(os.path.join(name, "agent.json"))


def check_frozen(experiment: Any, begun_with: Mapping[str, str]) -> None:
    """Raises BadInput where a co-player is not the agent any more that the run began with, by `frozen_in`."""
    now = frozen_in(experiment)
    for name, digest in begun_with.items():
        if now.get(name) != digest:
            what = "its settings or weights have changed" if name in now else "it is gone"
            raise BadInput(f"co-player {name} is not the agent that the run began with: {what}; want that one back, or a new run")


def check_same_settings(config: AgentConfig, trained: Any, here: Path, there: Path) -> None:
    """Raises BadInput naming the first of an agent's settings that is not what its weights were trained with.

    config: as `here` states it. trained: the settings as JSON, from the weights' own file, which is `there`; None in files that are older.
    """
    if trained is None:
        return
    try:
        wanted = from_json(trained)
    # Whatever a damaged file makes of itself: it is the file that is wrong.
    except Exception as error:
        raise BadInput(f"{there} is damaged: {error}") from error
    # What is new since a file was written has its default in both.
    difference = _first_difference(to_json(config), to_json(wanted), "agent")
    if difference is not None:
        name, stated, meant = difference
        raise BadInput(f"{name} is {stated!r} in {here}, {meant!r} in {there}; want what the weights were trained with")


def _first_difference(one: Any, other: Any, name: str) -> tuple[str, Any, Any] | None:
    """Where two JSON values differ first: a path such as "agent.memory.chunk_length", and what each has there."""
    if one == other:
        return None
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return name, one, other
    return next(filter(None, (_first_difference(one.get(key), other.get(key), f"{name}.{key}") for key in {**one, **other})))


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises BadInput naming the first that holds NaN or infinity: whatever is computed from it means nothing."""
    for name, numbers in tensors.items():
        bad = numbers[~numbers.isfinite()]
        if len(bad):
            raise BadInput(f"{where} cannot be used: its {name} holds {bad[0].item()}; want finite numbers alone")


def co_player(name: str) -> Occupant:
    """Whoever goes by a name: `NAME` or `NAME:setting=value,...` of `CO_PLAYERS`, `axelrod:NAME`, the path of a trained agent, or
    `module:object`, a policy of somebody else's with `start` and `act` (see `agents.occupant`; a class is called without arguments).

    Raises BadInput with the nearest match. `module:object` runs that module: see `runs_foreign_code`.
    """
    head, _, rest = name.partition(":")
    if head in CO_PLAYERS:
        occupant: Occupant = configured(load(CO_PLAYERS[head]), rest, head)
        return occupant
    if head == "axelrod":
        return _from_axelrod(rest)
    if (Path(name) / "agent.json").exists() or "/" in name:
        return load_agent(name)
    if runs_foreign_code(name):
        return _from_elsewhere(head, rest)
    raise BadInput(f"no co-player is called {name!r}; {nearest(head, CO_PLAYERS)} (a trained agent goes by its path)")


def runs_foreign_code(name: str) -> bool:
    """Whether a co-player's name is `module:object`. A person may say so; a file may not, unless it is trusted."""
    head, _, rest = name.partition(":")
    return head not in CO_PLAYERS and head != "axelrod" and is_elsewhere(head, rest)


def wants_trust_to_play(name: str) -> bool:
    """Whether a co-player's name, read from a file, is somebody else's code that nobody has trusted files to name."""
    return runs_foreign_code(name) and not is_trusted(name.partition(":")[0])


def members(path: str | Path) -> list[str]:
    """The paths of all agents in an agent's own directory, a directory of agents, or a run. Raises BadInput where there are none."""
    directory = Path(path).resolve()
    if (directory / "agent.json").is_file():
        return [str(directory)]
    if (directory / "experiment.json").is_file():
        directory /= "population"
    agents = sorted(str(file.parent) for file in directory.glob("*/agent.*"))
    if not agents:
        raise BadInput(f"{path} is no agent, no run and no directory of agents: want a directory with agent.json, here or one below")
    return list(dict.fromkeys(agents))


def _from_axelrod(name: str) -> Occupant:
    try:
        from agents.co_players.axelrod import AxelrodCoPlayer

        return AxelrodCoPlayer(name)
    except ModuleNotFoundError as error:
        raise BadInput(f"'axelrod:{name}' wants the Axelrod library; install it with: pip install -e '.[axelrod]'") from error
    except ValueError as error:
        raise BadInput(str(error)) from error


def _from_elsewhere(module: str, name: str) -> Occupant:
    """The object that a person named."""
    found = load_elsewhere(module, name, "co-player")
    try:
        occupant = found() if isinstance(found, type) else found
    except (Exception, SystemExit) as error:
        raise BadInput(f"no co-player is called {module}:{name}: {in_one_line(error)}") from error
    if not isinstance(occupant, Occupant):
        raise BadInput(f"{module}:{name} is a {type(occupant).__name__} without start or act; want both, as in agents/occupant.py")
    return Foreign(f"{module}:{name}", occupant)


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """A space as plain values. Raises ValueError for a kind that agents do not use."""
    match space:
        case gym.spaces.Discrete():
            return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {"kind": "multi_discrete", "n": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
        case gym.spaces.MultiBinary():
            return {"kind": "multi_binary", "n": [int(n) for n in space.shape]}
        case gym.spaces.Box():
            return {
                "kind": "box",
                "shape": list(space.shape),
                "dtype": str(space.dtype),
                "low": _bound_to_json(space.low),
                "high": _bound_to_json(space.high),
            }
        case gym.spaces.Dict():
            return {"kind": "dict", "fields": {name: space_to_json(field) for name, field in space.items()}}
    raise ValueError(f"{space} cannot be written; want Discrete, MultiDiscrete, MultiBinary, Box, or a Dict of these")


def space_from_json(data: dict[str, Any]) -> gym.Space[Any]:
    match data["kind"]:
        case "discrete":
            return gym.spaces.Discrete(data["n"], start=data["start"])
        case "multi_discrete":
            return gym.spaces.MultiDiscrete(data["n"], start=data["start"])
        case "multi_binary":
            return gym.spaces.MultiBinary(data["n"] if len(data["n"]) > 1 else data["n"][0])
        case "box":
            shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
            low, high = (np.broadcast_to(np.array(data[end], dtype=float), shape).astype(dtype) for end in ("low", "high"))
            return gym.spaces.Box(low, high, shape, dtype.type)
        case "dict":
            return gym.spaces.Dict({name: space_from_json(field) for name, field in data["fields"].items()})
    raise ValueError(f"no space is of kind {data['kind']!r}")


def _bound_to_json(bound: NDArray[Any]) -> Any:
    """One number where all are the same: pictures have many."""
    flat = bound.astype(float).ravel()
    return flat[0].item() if flat.size and (flat == flat[0]).all() else bound.astype(float).tolist()
