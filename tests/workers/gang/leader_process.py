"""A leader that computes steps for ever, to be killed or stopped: `python -m … FOLDER`. Prints its ranks' ids first."""

import os
import sys
from pathlib import Path

from shardline_workers.engine_loading import load_engine
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.parallel.parallel_plan import ParallelPlan
from tests.workers.gang.tiny_gangs import ENDLESS, run_for_ever, tiny_config
from tests.workers.tiny_checkpoint import model_files


def main(folder: str) -> None:
    plan = ParallelPlan(tp=2)
    pool = RankPool(report=lambda _: None)
    pool.start_children(plan.num_ranks - 1, environment=os.environ)
    engine = load_engine(tiny_config(model_files(Path(folder)), plan=plan), report=lambda _: None, pool=pool)
    print(*(member.pid for member in pool.members(plan.num_ranks).values()), flush=True)
    run_for_ever(engine, ENDLESS)


if __name__ == "__main__":
    main(sys.argv[1])
