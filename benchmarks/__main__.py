"""All benchmarks that need no GPU, one after another, each in a process of its own: `make bench`, or `python -m benchmarks NAME ...`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "stepping",
    "face",
    "overhead",
    "training",
    "evaluation",
    "axelrod_rounds",
    "coin_game",
    "ballet",
    "rooms3d",
    "renderers",
    "memories",
    "footprint",
)


def main() -> int:
    names = sys.argv[1:] or BENCHMARKS
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"error: no benchmark is called {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0:
            failed.append(name)
    print(f"\nbelow their targets: {', '.join(failed)}" if failed else "\nall targets met that were measured")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
