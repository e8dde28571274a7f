"""What TensorBoard is given."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.board import Board
from training.experiment import Experiment


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    return events


def test_a_cell_is_never_markup_and_reads_as_it_was_written(tmp_path: Path) -> None:
    board = Board(tmp_path)
    name = "<script>*player_0* [x](y) | `#` & $a$"
    board.table("names", ["name"], [[name]])
    board.close()
    text = read(tmp_path).Tensors("names/text_summary")[0].tensor_proto.string_val[0].decode()
    cell = text.splitlines()[2].removeprefix("| ").removesuffix(" |")
    assert not set(cell) & set("<>*_[]()|`$")
    assert html.unescape(cell) == name


def test_the_last_figures_do_not_come_back_as_a_first_point(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in (1, 2):
        board.scalars({"return/player": float(step)}, step)
    board.hyper_parameters(Experiment(), {"return/player": 2.0})
    board.close()
    assert [(point.step, point.value) for point in read(tmp_path).Scalars("return/player")] == [(1, 1.0), (2, 2.0)]


def test_curves_become_a_figure_of_one_panel_per_scenario(tmp_path: Path) -> None:
    board = Board(tmp_path)
    curve = np.stack([np.linspace(0, 1, 5)] * 3, 1)
    board.curves("curves", {f"against {number}": {"an agent": curve} for number in range(4)}, "cooperation")
    board.curves("fewer", {f"against {number}": {"an agent": curve} for number in range(3)}, "cooperation")
    board.picture("strip", np.zeros((6, 8, 3), np.uint8))
    board.close()
    events = read(tmp_path)
    # Three in a row: the fourth takes another.
    (four,), (three,) = events.Images("curves"), events.Images("fewer")
    assert four.width == three.width == 1200
    assert four.height > three.height
    assert (events.Images("strip")[0].width, events.Images("strip")[0].height) == (8, 6)
