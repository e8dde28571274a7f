"""The Coin Game at batch 4,096 on the same cores: our step alone, our rollout, and JaxMARL's step under jit, vmap and scan.

All play given random moves, make every observation, and start a fresh episode where one has ended (after 100 steps). JaxMARL's environment
runs in a process of its own, taking turns with ours, by an interpreter that has it: COTERIE_JAXMARL=/path/to/python. `TO_MAKE_ONE` is how.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from agents.occupant import Decision
from benchmarks.measure import interpreter_named_by, seconds, verdict
from envs.coin_game import CoinGame
from training.allocator import keep_freed_memory
from training.rollout import Rollout
from training.seating import one_table

BATCH, STEPS, TURNS = 4096, 100, 5

TO_MAKE_ONE = """\
  python3 -m venv /tmp/jaxmarl
  /tmp/jaxmarl/bin/pip install jax jaxmarl
  COTERIE_JAXMARL=/tmp/jaxmarl/bin/python python -m benchmarks coin_game"""

# Prints env steps per second, the median of nine runs after one that compiles.
THEIRS = f"""
import statistics, time
import jax
from jaxmarl.environments.coin_game import CoinGame

game = CoinGame(num_inner_steps={STEPS}, num_outer_steps=1)
_, state = jax.vmap(game.reset)(jax.random.split(jax.random.PRNGKey(0), {BATCH}))
moves = jax.random.randint(jax.random.PRNGKey(1), ({STEPS}, {BATCH}, 2), 0, 5)
step = jax.vmap(lambda key, state, moves: game.step(key, state, {{"0": moves[0], "1": moves[1]}}))

def one(carry, moves):
    state, key = carry
    key, luck = jax.random.split(key)
    seen, state, rewards, over, _ = step(jax.random.split(luck, {BATCH}), state, moves)
    return (state, key), (seen, rewards, over)

play = jax.jit(lambda carry: jax.lax.scan(one, carry, moves))
times = []
for _ in range(10):
    begin = time.perf_counter()
    jax.block_until_ready(play((state, jax.random.PRNGKey(2))))
    times.append(time.perf_counter() - begin)
print({BATCH * STEPS} / statistics.median(times[1:]))
"""


class Clock(NamedTuple):
    step: Tensor


class Given:
    """Plays moves [T, N] that were drawn beforehand."""

    def __init__(self, moves: Tensor) -> None:
        self.moves = moves
        self.time = 0

    def start(self, seeds: Tensor) -> Clock:
        return Clock(torch.zeros_like(seeds))

    def act(self, observation: dict[str, Tensor], state: Clock, reward: Tensor) -> tuple[Decision, Clock]:
        self.time += 1
        return Decision(self.moves[self.time % len(self.moves)]), state


def main() -> bool:
    keep_freed_memory()
    # Tensors of 8,192 numbers: waiting for a second thread takes longer than what it does.
    torch.set_num_threads(1)
    game = CoinGame(rounds=STEPS, can_stay=True)
    moves = torch.randint(5, (STEPS, BATCH, 2), generator=torch.Generator().manual_seed(1))
    seeds = torch.arange(BATCH)
    rollout = Rollout(game, one_table(("given", "given"), BATCH), {"given": Given(moves.flatten(1))})
    table = rollout.start(seeds)

    def play_alone() -> None:
        state = game.start(seeds)
        for step in range(STEPS):
            game.observe(state)
            state, _ = game.step(state, {"player": moves[step]})

    interpreter = interpreter_named_by("COTERIE_JAXMARL")
    alone, rolled, theirs = [], [], []
    for _ in range(TURNS):
        alone.append(BATCH * STEPS / seconds(play_alone, 9))
        rolled.append(BATCH * STEPS / seconds(lambda: rollout.play(table, STEPS), 9))
        if interpreter is not None:
            theirs.append(float(subprocess.run([interpreter, "-c", THEIRS], check=True, capture_output=True, text=True).stdout.split()[-1]))
    print(f"our step: {statistics.median(alone):,.0f} env steps/s; our rollout: {statistics.median(rolled):,.0f} env steps/s", flush=True)
    if not theirs:
        print(
            f"JaxMARL's: not measured; COTERIE_JAXMARL names no interpreter. To make one that has it, and measure:\n{TO_MAKE_ONE}",
            flush=True,
        )
        return True
    print(f"JaxMARL's coin_game: {statistics.median(theirs):,.0f} env steps/s", flush=True)
    met = verdict("our step is", statistics.median(alone) / statistics.median(theirs), 1, "times as fast")
    return verdict("our rollout is", statistics.median(rolled) / statistics.median(theirs), 1, "times as fast") and met


if __name__ == "__main__":
    sys.exit(not main())
