"""The same ranks without Slurm: what a job's results are held against."""

from tests.ranks import QUIET, SMALL, Results, Starter, World, free_port, place, quoted


def train(starter: Starter, ranks: int, *overrides: str, name: str, environ: dict[str, str] | None = None) -> Results:
    """Ranks on this machine that take themselves for two machines with half of them each, so they speak through gloo.

    Ranks that know that they share a machine add up in its memory, in another order than gloo does.
    """
    port, half = free_port(), ranks // 2
    pids, files = [], []
    for rank in range(ranks):
        files.append(starter.folder / f"output-{name}-{rank}")
        own = {**place(rank, ranks, port), "LOCAL_RANK": str(rank % half), "LOCAL_WORLD_SIZE": str(half)}
        asked = {
            "argv": [f"run.root={quoted(str(starter.folder / 'runs'))}", *SMALL, *overrides, f"run.name={name}"],
            "environ": {**QUIET, **own, **(environ or {})},
            "cwd": str(starter.folder),
            "output": str(files[-1]),
        }
        pids.append(starter.nursery.fork(asked))
    ended = World(starter.nursery, pids, files).wait()
    assert ended.codes == [0] * ranks, ended.output
    return starter.results(name)
