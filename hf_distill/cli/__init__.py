"""What can I ask it? One file per subcommand; heavy imports inside the commands."""
