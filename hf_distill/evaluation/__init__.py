"""How good, how fast? Import from the modules: `metrics`, `spans`, `speed`."""
