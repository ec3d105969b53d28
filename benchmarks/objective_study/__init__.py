"""What is each objective worth? The parts of benchmarks/objectives.py."""
