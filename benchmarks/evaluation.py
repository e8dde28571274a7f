"""How long a person waits for an evaluation: twenty scenarios x 256 trials x 100 rounds with a GRU of 128, the whole command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from agents.agent import AgentConfig
from benchmarks.measure import seconds, verdict
from envs.iterated_dilemma import prisoners_dilemma
from memory.gru import GRUConfig
from training.population import save_agent


def main() -> bool:
    role = prisoners_dilemma().roles[0]
    with tempfile.TemporaryDirectory() as folder:
        save_agent(AgentConfig(GRUConfig(128)).build(role.observation_space, role.action_space, 0), Path(folder) / "agent")
        command = [sys.executable, "launch.py", "evaluate", f"{folder}/agent", "--suite", "ipd_classics", "--out", f"{folder}/out"]
        taken = seconds(lambda: subprocess.run(command, check=True, capture_output=True), 3)
    return verdict("evaluation of twenty scenarios, imports and report included", taken, 20, "s", at_least=False)


if __name__ == "__main__":
    sys.exit(not main())
