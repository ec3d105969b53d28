"""Does it work here? The main job on a teacher and text that need no model hub."""
