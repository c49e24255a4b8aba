"""Tasks, runs, claims and leaderboards. Callable: ``bench(task)``."""

from engramma.callables import make_callable

make_callable(__name__, "engramma.bench.leaderboard", "bench")
