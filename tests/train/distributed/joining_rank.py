"""A rank that comes no further than the ranks' store: python -m tests.train.distributed.joining_rank.

It says a line when it is there."""

import json
import os
import threading
from datetime import timedelta

from phalanx.exit.rank_env import RankEnv
from phalanx.train.distributed.rendezvous import _store
from phalanx.train.distributed.watchdog import Watchdog


def main() -> None:
    rank_env = RankEnv.from_environment(os.environ)
    store = _store(rank_env, timedelta(seconds=60))
    watch = Watchdog(rank_env.rank, rank_env.size, 600.0, store)
    watch.at("join", 0)
    while json.loads(store.get(f"at/{rank_env.rank}"))["phase"] != "join":
        threading.Event().wait(0.05)
    print("joining", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
