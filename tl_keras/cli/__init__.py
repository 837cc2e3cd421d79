"""The command tl-keras: one file a command."""
