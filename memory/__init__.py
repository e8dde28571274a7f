"""Memories: what an agent carries from step to step, behind one law (`memory.memory`). `MEMORIES` names them, as `module:config`."""

MEMORIES: dict[str, str] = {
    "none": "memory.none:NoMemoryConfig",
    "gru": "memory.gru:GRUConfig",
}
