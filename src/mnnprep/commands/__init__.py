"""One implementation a command, named as the command."""
