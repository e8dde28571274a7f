"""Writing files so that neither a crash nor a full disk damages what is there (write beside, fsync, rename), and new directories."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from training.settings import BadInput


def write_atomically(path: Path, data: bytes) -> None:
    """After this, `path` holds all of data; if anything fails, what was there before. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    _sync_directory(path.parent)


def new_directory(root: Path, name: str) -> Path:
    """root/name-DATE-TIME, or with a number behind that where others were as quick; nobody else has it. Raises BadInput."""
    stamped = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        directory = root / (stamped if number == 1 else f"{stamped}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
        except OSError as error:
            raise BadInput(f"runs cannot be written to {root}: {error.strerror}") from error
    raise AssertionError("numbers do not end")


def _sync_directory(directory: Path) -> None:
    """Makes renames in a directory last."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
