"""What does a start cut out of the teacher save? The parts of benchmarks/extraction.py."""
