"""Memories side by side: cells in processes of their own, sizes and luck, what is measured, the table, and going on."""

from __future__ import annotations

import functools
import json
import operator
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from agents.co_players.luck import new_luck
from agents.occupant import Decision
from envs.chance import Purpose, seeds_of
from envs.diagnostics.match_to_sample import MatchToSample
from launch import main
from memory import MEMORIES
from memory.budget import parameters_of
from training import memory_benchmark
from training.cells import run_cells
from training.memory_benchmark import BEGIN, END, RESULTS, TASKS, Cell, MemoryBenchmark, carry_out, create, examine, reopen, rows_of, table
from training.plain import PlainTrainer
from training.presets import STUDIES
from training.settings import BadInput

SMALL = ["memories=none,gru", "tasks=associative_recall", "seeds=1", "iterations=1", "trials=6", "parameters=5000"]


def small(**settings: Any) -> MemoryBenchmark:
    given = {"memories": "none,gru", "tasks": "associative_recall", "seeds": 1, "iterations": 1, "trials": 6, "parameters": 5000}
    return MemoryBenchmark(**{**given, **settings})


def told_by(parts: Mapping[str, Callable[[], Any]], folder: Path, seconds: float, workers: int = 2) -> dict[str, str | None]:
    told: dict[str, str | None] = {}
    run_cells(parts, folder, workers, seconds, told.__setitem__)
    return told


def test_a_part_that_raises_or_dies_is_lost_alone(tmp_path: Path) -> None:
    parts = {
        "kills_itself": functools.partial(signal.raise_signal, signal.SIGKILL),
        "leaves": functools.partial(os._exit, 3),
        "raises": functools.partial(operator.truediv, 1, 0),
        "works": functools.partial(dict, right=0.5),
    }
    told = told_by(parts, tmp_path, seconds=300.0)
    assert told == {
        "kills_itself": "died of signal 9",
        "leaves": "ended with exit code 3",
        "raises": "ZeroDivisionError: division by zero",
        "works": None,
    }
    assert json.loads((tmp_path / "works.json").read_text()) == {"right": 0.5}
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["raises.txt", "works.json"]


def test_a_part_that_hangs_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert told_by({"hangs": functools.partial(time.sleep, 1000)}, tmp_path, seconds=1.0) == {"hangs": "killed after 1 s"}
    assert time.monotonic() - begun < 100


def test_who_stops_leaves_no_part_running(tmp_path: Path) -> None:
    def stop(name: str, problem: str | None) -> None:
        raise KeyboardInterrupt

    parts = {"leaves": functools.partial(os._exit, 0), "late": functools.partial(time.sleep, 1000)}
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_cells(parts, tmp_path, 2, 300.0, stop)
    assert time.monotonic() - begun < 100


def test_every_study_is_listed_and_every_memory_fits_into_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert STUDIES == {"memory_benchmark": "training.memory_benchmark:MemoryBenchmark"}
    assert main(["list", "studies"]) == 0
    assert "memory_benchmark  All memories at equal size on three tasks" in capsys.readouterr().out
    MemoryBenchmark().check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["memories=foo"], "no memory is called 'foo'"),
        (["memories=lstm,hcm"], "no memory is called 'hcm'; did you mean 'hcam'?"),
        (["tasks=balet"], "no task is called 'balet'; did you mean 'ballet'?"),
        (["seeds=0"], "seeds is 0; want from 1 to 1,000,000,000"),
        (["seconds=0.5"], "seconds is 0.5; want from 1 to 1,000,000"),
        (["rounds=3"], "no setting is called 'rounds'"),
        (["parameters=100", "memories=none,lstm"], "parameters is 100: lstm: target is 100; want at least 264"),
        (["--evaluate"], "--evaluate means nothing here"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_starts(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "memory_benchmark", *words, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_whose_name_is_nearly_right_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "memory_benchmrk"]) == 2
    assert "did you mean 'memory_benchmark'?" in capsys.readouterr().err


def test_memories_have_the_same_size_and_cells_of_a_seed_the_same_luck() -> None:
    benchmark = MemoryBenchmark(memories="lstm,gru", seeds=2)
    assert [str(cell) for cell in benchmark.cells[:3]] == ["lstm-match_to_sample-0", "gru-match_to_sample-0", "lstm-associative_recall-0"]
    assert len(benchmark.cells) == 12
    lstm, gru = (benchmark.experiment(Cell(memory, "ballet", 1)) for memory in ("lstm", "gru"))
    # Four gates of 84 and three of 101, each from 64 inputs, the last output and a bias; a GRU has one bias more.
    sizes = [parameters_of(experiment.agent.memory, 64) for experiment in (lstm, gru)]
    assert sizes == [4 * 84 * (64 + 84 + 1), 3 * 101 * (64 + 101 + 1) + 101]
    assert max(sizes) - min(sizes) < 500
    assert (lstm.seed, lstm.trials, lstm.iterations, lstm.game) == (gru.seed, gru.trials, gru.iterations, gru.game)


def test_longer_delays_are_ten_times_as_long() -> None:
    match, recall, ballet = (TASKS[name] for name in ("match_to_sample", "associative_recall", "ballet"))
    assert (match.learned.n, match.tested.n, match.longer.n) == (16, 16, 160)
    assert {game.queries for game in match[:3]} == {1}
    assert (match.tested.curriculum, match.longer.curriculum) == ("single", "single")
    assert recall.learned == recall.tested
    assert mean_delay(recall.longer) == pytest.approx(10 * mean_delay(recall.tested), rel=0.01)
    # The paper's long delay.
    assert (ballet.learned.delay, ballet.tested.delay, ballet.longer.delay) == (5, 5, 48)
    assert [game.watching for game in ballet[:3]] == [40, 40, 126]
    assert [game.limit for game in ballet[:3]] == [44, 48, 134]


@pytest.mark.parametrize("name", MEMORIES)
def test_every_memory_is_as_large_as_its_heads_allow(name: str) -> None:
    # Widths are multiples of the heads, a sixth of the parameters at most.
    for task in memory_benchmark.TASKS:
        memory = MemoryBenchmark().memory_of(name, task)
        assert parameters_of(memory, memory_benchmark.EMBEDDING) == pytest.approx(50_000, rel=0.16)


def mean_delay(game: Any) -> float:
    """Steps from a key to its coming again."""
    script = game.script(seeds_of(0, Purpose.EVALUATION, 20_000))
    tokens, pairs = script.shown["token"], 2 * game.pairs
    came = (tokens[:, None, pairs:] == tokens[:, :pairs:2, None]).float().argmax(2) + pairs
    return float((came - torch.arange(0, pairs, 2)).float().mean())


class SaysSame:
    """Says "same" whatever it sees."""

    def start(self, seeds: Tensor) -> Any:
        return new_luck(seeds)

    def act(self, observation: Any, state: Any, reward: Tensor | None = None) -> Any:
        return Decision(torch.ones_like(state.clock)), state.next()


class GoesNorth:
    def start(self, seeds: Tensor) -> Any:
        return new_luck(seeds)

    def act(self, observation: Any, state: Any, reward: Tensor | None = None) -> Any:
        return Decision(torch.zeros_like(state.clock)), state.next()


def test_a_trial_counts_the_share_that_was_right_in_it() -> None:
    found = examine(SaysSame(), MatchToSample(n=8, queries=4), "correct", 50)
    assert found is not None
    assert set(found) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert 0.4 < sum(found) / 50 < 0.6


def test_only_the_first_trial_of_a_row_counts_where_trials_may_end_early() -> None:
    found = examine(SaysSame(), MatchToSample(n=8, queries=4, curriculum="many"), "correct", 50)
    assert found is not None
    # Four tests each, however short the delay.
    assert set(found) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_ballet_is_a_success_or_none() -> None:
    game = TASKS["ballet"].tested
    found = examine(GoesNorth(), game, "success", 200)
    assert found is not None
    # Three steps north of the middle is a home: to one of two dancers in a quarter of the games, to the right one in an eighth.
    assert set(found) == {0.0, 1.0}
    assert 0.05 < sum(found) / 200 < 0.2


class Overflows(GoesNorth):
    """Remembers what is not finite."""

    def act(self, observation: Any, state: Any, reward: Tensor | None = None) -> Any:
        decision, after = super().act(observation, state, reward)
        return decision._replace(value=torch.full(state.clock.shape, torch.inf)), after


def test_what_is_not_finite_fails_the_test() -> None:
    with pytest.raises(BadInput, match="learner_0: its value holds inf"):
        examine(Overflows(), TASKS["match_to_sample"].tested, "correct", 2)


def test_a_test_whose_time_is_over_says_nothing() -> None:
    assert examine(SaysSame(), TASKS["match_to_sample"].longer, "correct", 2, deadline=time.process_time() - 1) is None


def test_a_cell_that_is_over_its_time_is_cut_and_tested_all_the_same() -> None:
    result = memory_benchmark.run_cell(small(iterations=100_000, seconds=1.0), Cell("none", "associative_recall", 0))
    # 256 trials of 20 steps.
    assert result["frames"] % 5120 == 0
    assert 0 < result["share"] < 0.01
    assert len(result["tested"]) == 6


def test_weights_that_are_not_finite_fail_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(trainer: PlainTrainer) -> None:
        trainer.agents["learner_0"].value_head.bias.data.fill_(torch.nan)
        trainer.iteration += 1

    monkeypatch.setattr(PlainTrainer, "train", spoil)
    with pytest.raises(ValueError, match="weights are not finite after 5,120 frames"):
        memory_benchmark.run_cell(small(), Cell("none", "associative_recall", 0))


def result(tested: list[float], longer: list[float] | None, share: float = 1.0, speed: float = 1000.0) -> dict[str, Any]:
    sizes = {"parameters": 5012, "state_size": 30, "frames": 4096, "share": share, "frames_per_second": speed}
    return {**sizes, "tested": tested, "longer": longer}


def test_the_table_has_the_best_first_and_names_what_failed_was_cut_or_is_missing() -> None:
    benchmark = MemoryBenchmark(memories="gru,lstm,none,hcam", tasks="ballet", seeds=2, trials=4)
    done = {
        Cell("gru", "ballet", 0): result([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], speed=1000.0),
        Cell("gru", "ballet", 1): result([1.0, 1.0, 0.0, 1.0], None, share=0.4, speed=3000.0),
        Cell("none", "ballet", 0): result([1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]),
    }
    failed = {Cell("none", "ballet", 1): "died of signal 9", Cell("lstm", "ballet", 0): "ValueError: a|b"}
    rows = rows_of(benchmark, done, failed)
    assert [row.memory for row in rows] == ["none", "gru", "lstm", "hcam"]
    assert [row.tested.mean if row.tested else None for row in rows] == [1.0, 0.625, None, None]
    assert rows[1].tested.seeds == 2
    assert rows[1].longer == (0.0, 0.0, 0.0, 1, 4)
    lines = table(benchmark, rows).splitlines()
    assert lines[5].startswith("| ballet | none | 5,012 | 30 | 1,000 | 1.000 [1.000, 1.000] | 0.500 [")
    assert lines[5].endswith("| seed 1 failed: died of signal 9 |")
    assert "| 2,000 | 0.625 [" in lines[6]
    assert lines[6].endswith("| seed 1 was cut at 40%; seed 1: no time for longer delays |")
    assert lines[7] == "| ballet | lstm |  |  |  |  |  | seed 0 failed: ValueError: a/b; to do: seed 1 |"
    assert lines[8] == "| ballet | hcam |  |  |  |  |  | to do: seed 0, 1 |"


def here(parts: Mapping[str, Callable[[], Any]], folder: Path, workers: int, seconds: float, tell: Callable[..., None]) -> None:
    """Cells one after another in this process, without the seconds that a process takes to start; GRUs die."""
    for name, work in parts.items():
        if name.startswith("gru"):
            tell(name, "died of signal 9")
        else:
            (folder / f"{name}.json").write_text(json.dumps(work()))
            tell(name, None)


def test_a_cell_that_failed_is_tried_again_and_one_that_is_done_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_benchmark, "run_cells", here)
    assert main(["train", "memory_benchmark", *SMALL, "--runs", str(tmp_path)]) == 1
    said = capsys.readouterr()
    (run,) = tmp_path.iterdir()
    assert f"run {run}\n1/2 none-associative_recall-0: " in said.out
    assert "1/2 gru-associative_recall-0: died of signal 9" in said.out
    assert said.err == (f"error: 1 cells failed, which the table names; try them again with: python launch.py train --resume {run}\n")
    assert "| seed 0 failed: died of signal 9 |" in (run / "table.md").read_text()
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")
    tried: list[str] = []
    monkeypatch.setattr(memory_benchmark, "run_cells", lambda parts, *more: tried.extend(parts))
    assert main(["train", "--resume", str(run)]) == 0
    assert tried == ["gru-associative_recall-0"]
    assert "to do: seed 0" in (run / "table.md").read_text()
    events = EventAccumulator(str(run), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    assert events.Images("memory_benchmark")
    assert "memory_benchmark/text_summary" in events.Tags()["tensors"]


def test_a_cell_runs_in_a_process_of_its_own_to_the_same_numbers(tmp_path: Path) -> None:
    benchmark = small(memories="none", workers=1)
    directory = create(benchmark, tmp_path)
    assert reopen(directory) == benchmark
    assert carry_out(benchmark, directory, lambda text: None) == {}
    there = json.loads((directory / "cells" / "none-associative_recall-0.json").read_text())
    own = memory_benchmark.run_cell(benchmark, Cell("none", "associative_recall", 0))
    del there["frames_per_second"], own["frames_per_second"]
    assert there == own


def test_who_stops_is_told_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(memory_benchmark, "run_cells", stopped)
    assert main(["train", "memory_benchmark", *SMALL, "--runs", str(tmp_path)]) == 130
    (run,) = tmp_path.iterdir()
    assert f"stopped; go on with: python launch.py train --resume {run}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "study.json is damaged"),
        ('{"format": 2, "settings": {"type": ""}}', "has format 2; this version reads format 3"),
        ('{"format": 3, "settings": {"type": "", "seeds": 0}}', "seeds is 0"),
        ('{"format": 3, "settings": {"type": "", "memory": "gru"}}', "memory_benchmark has no setting 'memory'"),
    ],
)
def test_settings_that_cannot_be_read_are_named(content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.json").write_text(content)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    directory = create(small(), tmp_path)
    (directory / "cells" / "gru-associative_recall-0.json").write_text("{")
    with pytest.raises(BadInput, match=r"gru-associative_recall-0.json is damaged"):
        carry_out(small(), directory)


def test_the_table_goes_between_the_marks_of_a_page_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# before\n\n{BEGIN}\n\nold\n{END}\n\n## after\n")
    memory_benchmark.write_results("new\n", b"picture", page)
    link = "![share right by memory, as trained and ten times longer](memory_benchmark.png)"
    assert page.read_text() == f"# before\n\n{BEGIN}\n\nnew\n\n{link}\n\n{END}\n\n## after\n"
    assert (tmp_path / "memory_benchmark.png").read_bytes() == b"picture"
    page.write_text("no marks")
    with pytest.raises(BadInput, match=re.escape(f"{page} has no place for the table")):
        memory_benchmark.write_results("new\n", b"other", page)
    assert page.read_text() == "no marks"
    assert (tmp_path / "memory_benchmark.png").read_bytes() == b"picture"
    assert RESULTS.read_text().count(BEGIN) == RESULTS.read_text().count(END) == 1
