"""What is handed over? Plain data in, a model card out: `facts`, `card`."""
