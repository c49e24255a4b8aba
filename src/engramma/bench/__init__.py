"""Tasks, runs, claims and leaderboards."""
