"""The losses of other libraries beside ours. The parts of benchmarks/peers.py."""
