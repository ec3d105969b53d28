"""What a teacher showed, kept on disk: example by example, to be shown again."""
