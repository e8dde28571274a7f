"""What TensorBoard shows of a run: scalars by the names of `training.metrics`, settings, figures, recordings as text and pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from training.settings import to_json

Array = NDArray[Any]


class Board:
    """purge_after: drop what an earlier, interrupted part of the run wrote for later iterations."""

    def __init__(self, directory: Path, purge_after: int | None = None) -> None:
        self._writer = SummaryWriter(str(directory), purge_step=purge_after)

    def settings(self, experiment: Any) -> None:
        """The preset as text, and the settings as hyper-parameters."""
        text = json.dumps(to_json(experiment), indent=1)
        self._writer.add_text("experiment", _as_code(text))
        flat = _flat(to_json(experiment))
        self._writer.add_text("hyper_parameters", _as_table(["setting", "value"], [[key, str(value)] for key, value in flat.items()]))

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def hyper_parameters(self, experiment: Any, results: Mapping[str, float]) -> None:
        """For TensorBoard's HPARAMS page: one point per run."""
        flat = {key: value if isinstance(value, (int, float, bool)) else str(value) for key, value in _flat(to_json(experiment)).items()}
        self._writer.add_hparams(flat, {f"final/{name}": value for name, value in results.items()}, run_name=".")

    def curves(self, tag: str, curves: Mapping[str, Mapping[str, Array]], label: str, step: int = 0) -> None:
        """One panel per scenario. curves: {panel: {line: [T, 3] mean, low, high}}. label: what the vertical axis shows."""
        columns = min(3, len(curves))
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis, (panel, lines) in zip(axes.flat, curves.items(), strict=False):
            for name, curve in lines.items():
                time = np.arange(1, len(curve) + 1)
                axis.plot(time, curve[:, 0], label=_plain(name))
                axis.fill_between(time, curve[:, 1], curve[:, 2], alpha=0.25, linewidth=0)
            axis.set_title(_plain(panel), fontsize=10)
            axis.grid(alpha=0.3)
        for axis in axes.flat[len(curves) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("step of the trial")
        for axis in axes[:, 0]:
            axis.set_ylabel(_plain(label))
        axes.flat[0].legend(fontsize=8)
        self._writer.add_figure(tag, figure, step)

    def dots(
        self,
        tag: str,
        panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
        rows: Sequence[str],
        label: str,
        marked: Mapping[str, float],
        step: int = 0,
    ) -> bytes:
        """Means and intervals from 0 to 1, a row each, in panels side by side; the picture as PNG, too.

        panels: {panel: {series: {row: (mean, low, high)}}}. label: what the horizontal axis shows. marked: {panel: where a line is drawn}.
        """
        figure = Figure(figsize=(2 + 3.2 * len(panels), 1.6 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (panel, series) in zip(axes, panels.items(), strict=True):
            axis.axvline(marked[panel], color="grey", linestyle="dashed", linewidth=1)
            for number, (name, known) in enumerate(series.items()):
                heights = [rows.index(row) + 0.15 * (2 * number - len(series) + 1) for row in known]
                means, low, high = np.array([*known.values()]).reshape(-1, 3).T
                axis.errorbar(means, heights, xerr=(means - low, high - means), fmt="os^D"[number % 4], markersize=4, label=_plain(name))
            axis.set_title(_plain(panel), fontsize=10)
            axis.set_xlim(-0.03, 1.03)
            axis.set_xlabel(_plain(label), fontsize=9)
            axis.grid(alpha=0.3)
        axes[0].set_yticks(range(len(rows)), [_plain(row) for row in rows])
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper right", ncols=4)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        self._writer.add_figure(tag, figure, step)
        return picture.getvalue()

    def table(self, tag: str, header: list[str], rows: list[list[str]], step: int = 0) -> None:
        self._writer.add_text(tag, _as_table(header, rows), step)

    def picture(self, tag: str, picture: Array, step: int = 0) -> None:
        """picture: [height, width, 3] uint8."""
        self._writer.add_image(tag, picture, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _as_code(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _as_table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown in which no cell is markup: names come from people."""
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    special = "\\`*_{}[]()#+!|~&<>\"'$"
    return text.translate({ord(character): f"&#{ord(character)};" for character in special}).replace("\n", " ")


def _plain(text: str) -> str:
    """Matplotlib reads $...$ as mathematics."""
    return text.replace("$", r"\$")


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(settings, dict):
        flat: dict[str, Any] = {}
        for key, value in settings.items():
            flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
        return flat
    return {prefix: settings}
