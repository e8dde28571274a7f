"""One script per question; each prints what it measured, side by side in one run. `python -m benchmarks` runs all that need no GPU."""
