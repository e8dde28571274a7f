"""What `launch.py list` prints, and what the command does before anything is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from launch import main
from training.run import Run, Snapshot
from training.train import Failed

ROOT = Path(__file__).parent.parent


def listed(capsys: pytest.CaptureFixture[str], *kinds: str) -> list[str]:
    assert main(["list", *kinds]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 100])
def test_a_list_fits_the_terminal(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = listed(capsys)
    assert max(map(len, lines)) <= columns
    assert "  donor_game_in_quarters        The donor game with gifts of nothing, a quarter," in " ".join(lines)


def test_every_entry_of_a_list_is_a_whole_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    entries = [line for line in listed(capsys) if line.startswith("  ")]
    assert len(entries) > 150
    assert [entry for entry in entries if not re.fullmatch(r"  \w+ +\S.*[^ .]\)?\.", entry)] == []
    # Sentences that run over a line, that hold a full stop, and that are followed by others.
    text = "\n".join(entries)
    assert "and agents of other seeds of its preset.\n" in text
    assert "by straight-through Gumbel-softmax (`training.messages`).\n" in text
    assert "Repeated chicken with payoffs 3, 1, 4, 0 (Leibo et al. 2017).\n" in text
    assert "(Press and Dyson 2012, eq. 14).\n" in text
    assert "  coin_wanderer            Walks at random, onto coins or not.\n" in text


def test_every_memory_has_a_sentence_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    told = [line.split(maxsplit=1)[1] for line in listed(capsys, "memories") if line.startswith("  ")]
    assert len(told) == len(set(told)) > 20


@pytest.mark.parametrize(("own", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_threads_that_wait_sleep_soon_unless_somebody_says_otherwise(own: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | own
    code = "import os, launch; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds whose training was begun; none is trained. That of seed 13 fails."""
    seeds: list[int] = []

    def train(run: Run, snapshot: Snapshot | None) -> None:
        assert snapshot is None
        seeds.append(run.experiment.seed)
        if run.experiment.seed == 13:
            raise Failed("nothing came of it")

    monkeypatch.setattr("training.train.train", train)
    return seeds


def test_seeds_are_trained_one_after_the_other_and_evaluated_together(
    trained: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[list[Run]] = []
    monkeypatch.setattr("launch._evaluate", lambda who, options: evaluated.append(who))
    assert main(["train", "two_learners", "seed=4", "--seeds", "3", "--evaluate", "--runs", str(tmp_path)]) == 0
    assert trained == [4, 5, 6]
    assert [[run.experiment.seed for run in runs] for runs in evaluated] == [[4, 5, 6]]
    assert len({run.directory for run in evaluated[0]}) == len(list(tmp_path.iterdir())) == 3
    assert main(["train", "two_learners", "--seeds", "2", "--runs", str(tmp_path / "more")]) == 0
    told = capsys.readouterr().out
    assert f"launch.py evaluate {' '.join(str(run) for run in sorted((tmp_path / 'more').iterdir()))}\n" in told


def test_a_seed_that_fails_says_how_many_had_not_begun(trained: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "two_learners", "seed=12", "--seeds", "5", "--runs", str(tmp_path)]) == 1
    assert trained == [12, 13]
    assert capsys.readouterr().err == "error: nothing came of it; 3 of the 5 seeds had not begun\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["two_learners", "--seeds", "0"], "--seeds is 0; want at least 1"),
        (["--resume", "there", "--seeds", "2"], "--resume goes on with one run, which has its seed, but --seeds 2 was given"),
        (["memory_benchmark", "--seeds", "2"], "--seeds means nothing here: a study has a setting for it; want seeds=2"),
        (["two_learners", "seed=9223372036854775807", "--seeds", "2"], "seed is 9223372036854775808; want a whole number of 64 bits"),
    ],
)
def test_seeds_that_cannot_be_are_refused_before_anything_starts(
    words: list[str], message: str, trained: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "--runs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert trained == list(tmp_path.iterdir()) == []


def entries() -> list[tuple[str, str]]:
    return [(kind, name) for kind, names in launch._dictionaries().items() for name in names]


@pytest.mark.parametrize("kind", ["games", "memories", "algorithms", "co_players", "presets", "schemes", "suites", "studies"])
def test_of_an_entry_all_is_told_and_every_setting_is_explained(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    unexplained = []
    for _, name in [entry for entry in entries() if entry[0] == kind]:
        assert main(["list", kind, name]) == 0
        text, _, settings = capsys.readouterr().out.rpartition("\n\n")
        assert text.strip()
        # Of settings within settings their owners tell.
        names = [line.partition("=")[0].partition(":")[0] for line in settings.splitlines() if kind not in ("presets", "suites", "schemes")]
        unexplained += [f"{name}.{each}" for each in names if "." not in each and not re.search(rf"\b{each}\b", text)]
    assert unexplained == []


def test_a_name_that_is_not_listed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memories", "hcm"]) == 2
    assert capsys.readouterr().err == "error: nothing in memories is called 'hcm'; did you mean 'hcam'?\n"
    assert main(["list", "memoris", "hcam"]) == 2
    assert capsys.readouterr().err == "error: nothing is listed under 'memoris'; did you mean 'memories'?\n"


def test_what_is_told_fits_the_terminal_but_for_formulae_and_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["list", "memories", "hcam"]) == 0
    text, _, _ = capsys.readouterr().out.rpartition("\n\n")
    assert max(len(line) for line in text.splitlines() if not line.startswith(" ")) <= 60


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "two_learners", "--runs", ""], "runs"),
        (["train", "--resume", ""], "resume"),
        (["evaluate", "tit_for_tat", ""], "who"),
        (["evaluate", "tit_for_tat", "--suite", ""], "suite"),
        (["replay", ""], "directory"),
        (["list", ""], "kind"),
    ],
)
def test_what_an_unset_variable_left_empty_is_refused(words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {name} is empty; want something there, or leave it out")
