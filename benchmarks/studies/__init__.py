"""What the studies beside this folder share: where results are kept, tasks, and their teachers."""
