"""One thread per process: pytest-xdist already uses every core, and two threads on a busy core only wait for each other.

Shapes and types are checked at every call in all modules that write shapes; in others mypy's word is taken, for a check takes as long as a
small operation. So it is in `envs.chance`, of whose few lines every step of everything calls dozens. And what Triton's interpreter needs to
run beside today's NumPy.
"""

import os
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
SHAPED = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in ("envs", "memory", "agents", "training")
    for file in (ROOT / package).rglob("*.py")
    if "from jaxtyping import" in file.read_text() and file != ROOT / "envs" / "chance.py"
]
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")


@pytest.fixture(autouse=True)
def _what_a_test_trusts_is_trusted_no_longer(monkeypatch):
    """Whose modules files may name, and where modules are looked for."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("COTERIE_TRUSTS", "COTERIE_PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture(autouse=True)
def _integers_of_one_element_arrays(monkeypatch):
    """Triton 3.6's interpreter takes bounds of loops as int(array of one), which NumPy 2.4 refuses. Nothing where Triton is not in use."""
    interpreter = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None:
        return
    original = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
