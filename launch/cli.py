"""The command `phalanx`: knows its verbs, and what people of other launchers type for them."""

import sys

import click

from launch.cancel import cancel
from launch.doctor import doctor
from launch.logs import logs
from launch.report import report
from launch.run import run
from launch.status import status
from launch.stop import stop
from launch.submit import submit
from launch.sweep import sweep
from train.nearest import nearest
from train.outcome import ConfigError, ExitCode
from train.refusal import say

VERBS = {
    "run": run,
    "submit": submit,
    "sweep": sweep,
    "status": status,
    "logs": logs,
    "report": report,
    "stop": stop,
    "cancel": cancel,
    "doctor": doctor,
}
ELSEWHERE = {
    **dict.fromkeys(("launch", "start", "train", "torchrun", "resume", "continue"), "run"),
    **dict.fromkeys(("sbatch", "queue"), "submit"),
    **dict.fromkeys(("list", "ls", "ps", "squeue"), "status"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("down", "pause"), "stop"),
    **dict.fromkeys(("kill", "scancel", "delete", "rm"), "cancel"),
    **dict.fromkeys(("env", "test", "check"), "doctor"),
}


class _Verbs(click.Group):
    """Names the verb that somebody meant."""

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
    """Entry of the console script. Ends the process with one of the exit codes in `train.outcome`."""
    phalanx = _Verbs(
        "phalanx",
        commands=VERBS,
        help="Train PyTorch models on any number of GPUs, here or on a cluster.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    try:
        phalanx(prog_name="phalanx")
    except ConfigError as error:
        say(f"error: {error}")
        sys.exit(ExitCode.CONFIG)


if __name__ == "__main__":
    main()
