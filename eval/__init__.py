"""Scores and leaderboard files of the benchmarks."""

from semvlp.eval.task import Answer, Example, Rank, Task
from semvlp.eval.tasks.table import TASKS, load_task

__all__ = ["TASKS", "Answer", "Example", "Rank", "Task", "load_task"]
