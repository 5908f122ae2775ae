"""The files of evaluation: annotations in, leaderboard files out, and where they came from."""
