"""What every part of the package may use: files, intervals, quiet start-up."""
