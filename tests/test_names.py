"""Every name that code uses is there. Linters are not asked about that: shapes in annotations ("B T D") are names to them, too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PLACES = ("launch.py", "envs", "memory", "agents", "training", "benchmarks")


class WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def undefined(files: dict[str, str], place: Path) -> list[str]:
    """What ruff finds undefined in these files, without their annotations."""
    for name, code in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(ast.unparse(WithoutAnnotations().visit(ast.parse(code))))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", "."]
    found = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False).stdout
    return [line for line in found.splitlines() if "F821" in line]


def test_every_name_is_defined(tmp_path: Path) -> None:
    files = [file for place in PLACES for file in ([ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py")))]
    assert len(files) > 150
    assert undefined({str(file.relative_to(ROOT)): file.read_text() for file in files}, tmp_path) == []


def test_one_that_is_not_would_be_found(tmp_path: Path) -> None:
    code = 'def f(x: Float[Tensor, "B T"]) -> Float[Tensor, "B"]:\n    return somewhere_else(x)\n'
    (line,) = undefined({"module.py": code}, tmp_path)
    assert "`somewhere_else`" in line
