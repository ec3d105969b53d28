"""The comparison of speed: one piece of work, the tools that do it, and how they take turns."""
