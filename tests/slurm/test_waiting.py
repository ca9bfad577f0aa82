"""`submit --wait` on a real Slurm: the exit code is that of the job, whichever way it ended."""

from concurrent.futures import ThreadPoolExecutor

from tests.ranks import SMALL, quoted
from tests.slurm.slurm_lab import Desk, program

ONE = "cluster.ranks_per_node=1"


def test_exit_code_is_that_of_the_job_whichever_way_it_ended(desk: Desk) -> None:
    """Cancelled in the queue, by what it depends on, or while it runs; elements with codes of their own; also while the
    controller is away for a moment."""
    told = """echo '{"code": 4, "rank": 0}' >"$PHALANX_CAUSE_FILE"; exit 1"""
    act = f'until [[ -e {desk.folder}/go ]]; do sleep 0.1; done\n[[ "$*" == *seed=0* ]] || exit 0\n{told}'
    program(desk.folder / "bin", "python", act)
    root = f"run.root={quoted(str(desk.runs))}"
    setup = f"cluster.setup=[{quoted(f'PHALANX_PYTHON={desk.folder}/bin/python')}]"
    hold, other = (desk.cluster.ask("sbatch", "--parsable", "--hold", "--wrap=true") for _ in range(2))
    asked = {
        "queue": (f"--after={hold}",),
        "dependency": (f"--after={other}",),
        "running": (setup,),
        "array": (setup, "--array=0-1", "seed=%a"),
    }

    def submit(name: str) -> int:
        words = ("--wait", root, *SMALL, ONE, f"run.name={name}-%a" if name == "array" else f"run.name={name}")
        return desk.type(*words, *asked[name]).returncode

    def listed(state: str) -> set[str]:
        return set(desk.cluster.ask("squeue", "--noheader", f"--states={state}", "--format=%j").splitlines())

    with ThreadPoolExecutor() as pool:
        codes = {name: pool.submit(submit, name) for name in asked}
        desk.cluster.until(lambda: {"queue", "dependency"} <= listed("PD") and len(listed("R")) == 2)
        assert desk.cluster.command("restart-controller").returncode == 0
        desk.cluster.ask("scancel", "--name=queue")
        desk.cluster.ask("scancel", other)
        desk.cluster.ask("scancel", "--name=running")
        desk.cluster.until(lambda: "running" not in listed("R,CG"))  # Slurm signals it after scancel has returned
        (desk.folder / "go").touch()
        assert {name: code.result() for name, code in codes.items()} == {
            "queue": 1,
            "dependency": 1,
            "running": 3,  # its script's own, which was told to leave
            "array": 4,
        }
    desk.cluster.ask("scancel", hold)
