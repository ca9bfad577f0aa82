"""The same ranks without Slurm: what a job's results are held against."""

from tests.ranks import QUIET, SMALL, Results, Starter, World, free_port, place, quoted


def train(starter: Starter, *overrides: str, name: str, environ: dict[str, str] | None = None) -> Results:
    """Four ranks on this machine that take themselves for two machines of two, so that they speak through gloo.

    Ranks that know that they share a machine add up in its memory, in another order than gloo does.
    """
    port = free_port()
    pids, files = [], []
    for rank in range(4):
        files.append(starter.folder / f"output-{name}-{rank}")
        own = {**place(rank, 4, port), "LOCAL_RANK": str(rank % 2), "LOCAL_WORLD_SIZE": "2"}
        asked = {
            "argv": [f"run.root={quoted(str(starter.folder / 'runs'))}", *SMALL, *overrides, f"run.name={name}"],
            "environ": {**QUIET, **own, **(environ or {})},
            "cwd": str(starter.folder),
            "output": str(files[-1]),
        }
        pids.append(starter.nursery.fork(asked))
    ended = World(starter.nursery, pids, files).wait()
    assert ended.codes == [0] * 4, ended.output
    return starter.results(name)
