"""Games and memories of somebody else's, by `module:object`: docs/adding.md's, outside the project; and what a file may not do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import launch
from memory.budget import parameters_of
from training import memory_benchmark
from training.experiment import Experiment
from training.occupants import check
from training.population import load_agent, save_agent
from training.run import Run, wants_trust
from training.settings import BadInput, from_json, override, to_json, trust

ROOT = Path(__file__).parent.parent
MEMORY, GAME = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "adding.md").read_text(), re.MULTILINE | re.DOTALL)
AVERAGE = "agent.memory=somebodys_memory:MovingAverageConfig"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with somebody's modules, where the person is."""
    (tmp_path / "somebodys_memory.py").write_text(MEMORY)
    (tmp_path / "somebodys_game.py").write_text(GAME)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("somebodys_")]:
        del sys.modules[name]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process in which nobody has named anything."""
    monkeypatch.setenv("COTERIE_TRUSTS", "")


def test_a_memory_is_named_with_its_settings_and_keeps_those_that_were_set() -> None:
    experiment = override(override(Experiment(), "agent.memory=gru:width=48"), AVERAGE)
    assert type(experiment.agent.memory).__name__ == "MovingAverageConfig"
    assert experiment.agent.memory.width == 48
    assert override(Experiment(), f"{AVERAGE}:width=24").agent.memory.width == 24
    assert override(Experiment(), AVERAGE, "agent.memory.width=40").agent.memory.width == 40


def test_a_memory_can_be_the_core_of_another() -> None:
    experiment = override(Experiment(), "agent.memory=depth_recurrent", "agent.memory.core=somebodys_memory:MovingAverageConfig")
    assert type(experiment.agent.memory.core).__name__ == "MovingAverageConfig"


def test_a_game_is_named_with_its_settings() -> None:
    experiment = override(Experiment(), "game=somebodys_game:cue:delay=7", "scheme=self_play")
    assert experiment.game.max_steps == 8
    assert override(Experiment(), "game=somebodys_game:Cue").game.delay == 5


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("agent.memory=somebodys_memry:Config", "no memory is called somebodys_memry:Config: ModuleNotFoundError"),
        ("agent.memory=somebodys_memory:Confg", "no memory is called somebodys_memory:Confg: AttributeError"),
        ("agent.memory=somebodys_memory:MovingAverage", "cannot be made without settings: TypeError"),
        ("agent.memory=somebodys_memory:AverageState", "cannot be made without settings: TypeError"),
        ("agent.memory=collections:OrderedDict", "is a OrderedDict; want a frozen dataclass that is a MemoryConfig (docs/adding.md)"),
        ("agent.memory=somebodys_memory:MovingAverageConfig:witdh=3", "did you mean 'width'?"),
        ("agent.memory=somebodys_memory:MovingAverageConfig:width=0", "MovingAverageConfig.width is 0; want a whole number from 1"),
        ("game=somebodys_memory:MovingAverageConfig", "is a MovingAverageConfig; want a frozen dataclass that is a Game"),
        ("agent.memory=gruu:width=3", "no memory is called 'gruu'; did you mean 'gru'?"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys: pytest.CaptureFixture[str], elsewhere: Path, typed: str, said: str) -> None:
    assert launch.main(["train", "two_learners", typed]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (elsewhere / "runs").exists()


FORWARD = "        rate, average = torch.sigmoid(self.rate), state.average\n"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("average.masked_fill(reset[:, t, None], 0.0)", "average", "what was seen before a reset, and nothing, give outputs that are"),
        ("AverageState(average)", "AverageState(torch.zeros_like(average))", "breaks the law of memories: one call over 9 steps and"),
        ("torch.stack(averages, 1) if averages else new", "average", "outputs are [3, 128]; want [B, T, D], here [3, 9, 128]"),
        ("-> MovingAverage:\n        return MovingAverage(inputs, self.width)", "-> object:\n        return object()", "want a Memory"),
        (
            FORWARD,
            f"{FORWARD}        x = torch.dropout(x, 0.5, self.training)\n",
            "one call over 9 steps and calls over some each give outputs",
        ),
        (FORWARD, f"{FORWARD}        x = x.flip(1)\n", "one call over 9 steps and calls over some each give outputs"),
        (
            "AverageState(average)",
            "AverageState(torch.cat([average, average], 1))",
            "state begins as float32 [3, 128] and is float32 [3, 256]",
        ),
        ("AverageState(average)", "AverageState(average.detach())", "calls over some each give gradients that are"),
        ("AverageState(average)", "[average]", "state is or holds a list; want a NamedTuple of tensors"),
        (FORWARD, f"{FORWARD}        x @ x\n", "RuntimeError"),
        (FORWARD, f"{FORWARD}        raise KeyError('gate')\n", "KeyError: 'gate' (somebodys_broken.py, line"),
        (
            "    @property\n    def state_size(self) -> int:\n        return self.outputs\n",
            "",
            "TypeError: Can't instantiate abstract class",
        ),
    ],
)
def test_a_memory_that_breaks_the_law_or_down_is_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], right: str, wrong: str, said: str
) -> None:
    assert MEMORY.count(right) == 1
    (elsewhere / "somebodys_broken.py").write_text(MEMORY.replace(right, wrong))
    assert launch.main(["train", "two_learners", "agent.memory=somebodys_broken:MovingAverageConfig"]) == 2
    error = capsys.readouterr().err
    assert "error: memory somebodys_broken:MovingAverageConfig: " in error
    assert said in error
    assert error.count("\n") == 1
    assert not (elsewhere / "runs").exists()


def test_a_memory_is_asked_with_the_settings_that_it_gets(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looks = MEMORY.replace("width: int = 128\n", "width: int = 128\n    ahead: bool = False\n")
    looks = looks.replace("MovingAverage(inputs, self.width)", "MovingAverage(inputs, self.width, self.ahead)")
    looks = looks.replace("inputs: int, width: int) -> None:", "inputs: int, width: int, ahead: bool) -> None:")
    looks = looks.replace("super().__init__(inputs, width)\n", "super().__init__(inputs, width)\n        self.ahead = ahead\n")
    looks = looks.replace(FORWARD, f"{FORWARD}        x = x.flip(1) if self.ahead else x\n")
    (elsewhere / "somebodys_ahead.py").write_text(looks)
    named = "agent.memory=somebodys_ahead:MovingAverageConfig"
    check(override(Experiment(), named))
    assert launch.main(["train", "two_learners", f"{named}:ahead=true"]) == 2
    assert "breaks the law of memories" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("    places: list[int] = field(default_factory=lambda: [1])\n", "places is (1,); want a whole number; want numbers"),
        ("    kind: torch.dtype = torch.float32\n", "cannot be kept in a file: TypeError"),
        ("    names: dict[int, int] = field(default_factory=lambda: {1: 2})\n", "cannot be kept in a file: BadInput"),
    ],
)
def test_settings_that_no_file_can_keep_are_refused(elsewhere: Path, capsys: pytest.CaptureFixture[str], more: str, said: str) -> None:
    kept = MEMORY.replace("    width: int = 128\n", f"    width: int = 128\n{more}").replace(
        "import dataclass\n", "import dataclass, field\n"
    )
    (elsewhere / "somebodys_kept.py").write_text(kept)
    assert launch.main(["train", "two_learners", "agent.memory=somebodys_kept:MovingAverageConfig"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (elsewhere / "runs").exists()


def test_choices_are_told_in_words(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = MEMORY.replace("    width: int = 128\n", '    width: int = 128\n    mode: Literal["slow", "fast"] = "slow"\n')
    (elsewhere / "somebodys_choice.py").write_text(kept.replace("import NamedTuple", "import Literal, NamedTuple"))
    named = "agent.memory=somebodys_choice:MovingAverageConfig"
    assert override(Experiment(), f"{named}:mode=fast").agent.memory.mode == "fast"
    assert launch.main(["train", "two_learners", f"{named}:mode=quick"]) == 2
    assert "mode is 'quick'; want 'slow' or 'fast'" in capsys.readouterr().err


def test_a_game_that_breaks_down_is_refused(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (right, wrong) in enumerate(
        [
            ("sees = gym", 'raise KeyError("roles")\n        sees = gym'),
            ("asked = state.step == self.delay\n        right", "asked = state.stp == self.delay\n        right"),
        ]
    ):
        assert GAME.count(right) == 1
        (elsewhere / f"somebodys_bad_{number}.py").write_text(GAME.replace(right, wrong))
        assert launch.main(["train", "two_learners", "scheme=self_play", f"game=somebodys_bad_{number}:cue"]) == 2
        error = capsys.readouterr().err
        assert f"(somebodys_bad_{number}.py, line" in error
        assert error.count("\n") == 1


def test_what_a_module_has_from_another_does_not_count_as_its_own(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    (elsewhere / "somebodys_trap.py").write_text("from pathlib import Path\n\nPath('sprung').write_text('')\n")
    (elsewhere / "somebodys_more.py").write_text(MEMORY + "\nfrom envs.third_party import ThirdPartyGame\n")
    override(Experiment(), "agent.memory=somebodys_more:MovingAverageConfig")
    with pytest.raises(BadInput, match="do not exist"):
        from_json({"type": "somebodys_more:ThirdPartyGame", "module": "somebodys_trap"})
    assert not (elsewhere / "sprung").exists()


def test_a_dataclass_within_a_class_comes_back(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    nested = "\n\nclass Home:\n    @dataclass(frozen=True)\n    class Config(MovingAverageConfig):\n        pass\n"
    (elsewhere / "somebodys_home.py").write_text(MEMORY + nested)
    experiment = override(Experiment(), "agent.memory=somebodys_home:Home.Config")
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_a_file_may_not_name_a_module_that_nobody_has_named(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    (elsewhere / "somebodys_trap.py").write_text("from pathlib import Path\n\nPath('sprung').write_text('')\n")
    with pytest.raises(BadInput, match=r"say --trust .* if you know somebodys_trap"):
        from_json({"type": "somebodys_trap:Config"})
    assert not (elsewhere / "sprung").exists()
    with pytest.raises(BadInput, match="somebodys_trap:Config"):
        from_json({"type": "somebodys_trap:Config"}, trusts=True)
    assert (elsewhere / "sprung").exists()
    data = to_json(override(Experiment(), AVERAGE))
    assert type(from_json(data).agent.memory).__name__ == "MovingAverageConfig"
    forget(monkeypatch)
    with pytest.raises(BadInput, match=r"say --trust .* if you know somebodys_memory"):
        from_json(data)


@pytest.mark.parametrize(
    "path", ["os:system", "os.path:join", "subprocess:Popen", "somebodys_memory:MovingAverage", "somebodys_memory:nn.Linear"]
)
def test_what_is_trusted_still_names_nothing_but_settings(path: str) -> None:
    with pytest.raises(BadInput, match="settings of type"):
        from_json({"type": path}, trusts=True)


def test_runs_and_agents_want_trust(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    experiment = override(Experiment(), f"{AVERAGE}:width=8")
    assert wants_trust(experiment)
    assert wants_trust(override(Experiment(), "game=somebodys_game:cue", "scheme=self_play"))
    assert not wants_trust(Experiment())
    run = Run.create(experiment, elsewhere / "runs")
    agent = experiment.build_learners()["learner_0"]
    save_agent(agent, elsewhere / "saved")
    forget(monkeypatch)
    with pytest.raises(BadInput, match=r"say --trust .* if you know somebodys_memory"):
        Run.open(run.directory)
    with pytest.raises(BadInput, match=r"say --trust .* if you know somebodys_memory"):
        load_agent(elsewhere / "saved")
    assert load_agent(elsewhere / "saved", trust=True).config == agent.config
    forget(monkeypatch)
    assert Run.open(run.directory, trust=True).experiment == experiment


@pytest.mark.long
def test_a_run_is_trained_gone_on_with_evaluated_and_met_again_from_elsewhere(elsewhere: Path) -> None:
    def said(*words: str, code: int = 0) -> str:
        own = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, ROOT / "launch.py", *words], env=own, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    # Nothing else of the directory is run, whatever it is called.
    for decoy in ("agents", "training", "random", "memory"):
        (elsewhere / f"{decoy}.py").write_text("import pathlib\n\npathlib.Path('sprung').write_text('')\n")
    quick = ("trials=32", "iterations=2", "runners=1", "learners=1", "agent.memory=somebodys_memory:MovingAverageConfig:width=16")
    assert " --trust" in said("train", "two_learners", *quick)
    (run,) = (elsewhere / "runs").iterdir()
    file = run / "experiment.json"
    settings = json.loads(file.read_text())
    settings["experiment"]["iterations"] = 3
    file.write_text(json.dumps(settings))
    assert "say --trust (in Python trust=True) if you know somebodys_memory" in said("train", "--resume", str(run), code=2)
    said("train", "--resume", str(run), "--trust")
    assert "say --trust" in said("evaluate", str(run), code=2)
    assert "report: " in said("evaluate", str(run), "--trust", "--trials", "8")
    met = f"scheme=best_response:{run / 'population' / 'learner_0'}"
    assert "say --trust" in said("train", "ipd_in_context_quick", "iterations=1", "trials=16", met, code=2)
    assert "replay" not in said("train", "ipd_in_context_quick", "iterations=1", "trials=16", met, "runners=1", "--trust")
    (of_both,) = (elsewhere / "runs").glob("ipd_*")
    assert wants_trust(Run.open(of_both).experiment)
    assert not (elsewhere / "sprung").exists()


def test_ones_own_memory_is_compared_with_the_others_at_equal_size(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    own = "somebodys_memory:MovingAverageConfig"
    study = override(memory_benchmark.MemoryBenchmark(), f"memories=gru,{own}", "tasks=match_to_sample", "seeds=1", "parameters=9000")
    study.check()
    assert study.memory_names == ["gru", own]
    sizes = [parameters_of(study.memory_of(name, "match_to_sample"), memory_benchmark.EMBEDDING) for name in study.memory_names]
    assert all(abs(size - 9000) < 300 for size in sizes)
    directory = memory_benchmark.create(study, elsewhere / "runs")
    assert memory_benchmark.reopen(directory) == study
    forget(monkeypatch)
    with pytest.raises(BadInput, match=f"wants to run the code of memory '{own}'; say --trust"):
        memory_benchmark.reopen(directory)
    trust()
    assert memory_benchmark.reopen(directory) == study
    with pytest.raises(BadInput, match="no memory is called 'gruu'"):
        override(memory_benchmark.MemoryBenchmark(), "memories=gruu")
    with pytest.raises(BadInput, match="no memory is called somebodys_memory:Nothing: AttributeError"):
        override(memory_benchmark.MemoryBenchmark(), "memories=somebodys_memory:Nothing").check()


@pytest.mark.long
def test_a_benchmark_of_ones_own_memory_runs_in_processes_of_its_own(elsewhere: Path) -> None:
    # In a package: names of files must not be cut at its dot.
    (elsewhere / "somebodys_package").mkdir()
    (elsewhere / "somebodys_memory.py").rename(elsewhere / "somebodys_package" / "memory.py")
    named = "memories=none,somebodys_package.memory:MovingAverageConfig"
    words = ("memory_benchmark", named, "tasks=match_to_sample,ballet", "seeds=1", "iterations=1", "trials=10")
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "launch.py", "train", *words], env=own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4/4 " in done.stdout
    (run,) = (elsewhere / "runs").iterdir()
    assert len(list((run / "cells").iterdir())) == 4
