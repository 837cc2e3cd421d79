"""The command tl-export: one file a command."""
