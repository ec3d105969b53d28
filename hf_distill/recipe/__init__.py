"""What was asked? A YAML file becomes a run; the only place where names become classes."""
