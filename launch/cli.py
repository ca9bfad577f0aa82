"""The command `phalanx`: knows its verbs, and what people of other launchers type for them."""

import sys
from importlib import import_module

from phalanx.exit.linux_only import require_linux

require_linux()

import click

from phalanx.common.stdio import open_closed_streams
from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say
from phalanx.system.module_path import hide_trees

VERBS = {  # --help imports none of them
    "bench": "Train the same steps on CPU and GPU, and compare them.",
    "cancel": "End a run or a sweep now, or take it out of the cluster's queue.",
    "doctor": "Check what ranks will need, before they start.",
    "evaluate": "Evaluate a run's weights once more, also on other data.",
    "export": "Write a run's model for another runtime, compared with the trained one.",
    "logs": "Print the log of a rank of a run.",
    "predict": "Predict by a run or an export: pictures, texts, sounds, pairs to JSON lines.",
    "prepare": "Fetch and write the data of a config, once.",
    "report": "Write an HTML page about a run or a sweep, or one that compares runs.",
    "run": "Train on this machine, on all free GPUs or on -n ranks.",
    "serve": "Answer predictions of an export over HTTP.",
    "status": "Show the state of runs and sweeps.",
    "stop": "Ask a run or a sweep to save and leave.",
    "submit": "Train on a cluster, as a job of Slurm.",
    "sweep": "Search for the best config over whole runs.",
}
_WITHIN = {  # folders of launch/commands
    "bench": "benchmark",
    **dict.fromkeys(("evaluate", "export", "predict", "serve"), "deployment"),
}
ELSEWHERE = {
    **dict.fromkeys(("launch", "start", "train", "torchrun", "resume", "continue"), "run"),
    **dict.fromkeys(("benchmark", "compare"), "bench"),
    **dict.fromkeys(("sbatch", "queue"), "submit"),
    **dict.fromkeys(("download", "fetch", "data"), "prepare"),
    **dict.fromkeys(("list", "ls", "ps", "squeue"), "status"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("down", "pause"), "stop"),
    **dict.fromkeys(("kill", "scancel", "delete", "rm"), "cancel"),
    **dict.fromkeys(("env", "check"), "doctor"),
    **dict.fromkeys(("eval", "test", "validate"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "generate"), "predict"),
    **dict.fromkeys(("deploy", "server"), "serve"),
}


def module_of(verb: str) -> str:
    """The module of a verb, which has a command of its name."""
    return ".".join(["phalanx.launch.commands", *filter(None, [_WITHIN.get(verb)]), verb])


class _Verbs(click.Group):
    """Imports the verb that was typed and no other, and names the one that somebody meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*VERBS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found: click.Command = getattr(import_module(module_of(cmd_name)), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError, which ends with code 2."""
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            meant = ELSEWHERE.get(word)
            hint = f"Type phalanx {meant}" if meant else f"{nearest(word, [*VERBS])}Type phalanx --help to see all"
            raise click.UsageError(f"phalanx has no command {word}. {hint}")
        return super().resolve_command(ctx, args)


def main() -> None:
    """Entry of the console script. Ends the process with one of the exit codes in `phalanx.exit.codes`."""
    phalanx = _Verbs(
        "phalanx",
        help="Train PyTorch models on any number of GPUs, here or on a cluster.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    open_closed_streams()
    hide_trees()  # a user's module is looked for here as it will be in ranks
    try:
        phalanx(prog_name="phalanx")
    except ConfigError as error:
        say(f"error: {error}")
        sys.exit(ExitCode.CONFIG)
    except OSError as error:  # of a disk, a network or a folder of this machine's, which no line of ours would mend
        where = "" if error.filename is None else f" ({error.filename})"
        advice = ". Set TMPDIR to a folder that can be written to" if "temporary" in str(error) else ""
        say(f"error: {error.strerror or error}{where}{advice}")
        sys.exit(ExitCode.BUG)


if __name__ == "__main__":
    main()
