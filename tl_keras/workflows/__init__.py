"""One file for each job a user can ask for."""
