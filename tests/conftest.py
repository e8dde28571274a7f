"""One thread per process: pytest-xdist already uses every core, and two threads on a busy core only wait for each other.

And what Triton's interpreter needs to run beside today's NumPy.
"""

import sys

import pytest
import torch

torch.set_num_threads(1)


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
