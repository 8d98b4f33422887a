"""What rotator costs, beside a peer in the same run: ``python -m benchmarks``."""
