"""Commands of `tl-export`, one file each; `export.cli` is their roof."""
