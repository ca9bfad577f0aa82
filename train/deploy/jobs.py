"""What a rank does that does not train."""

from collections.abc import Callable

from phalanx.compose.compose import Composed
from phalanx.deployment.job import EXPORT, PREDICT, Job
from phalanx.exit.codes import Failure

from ..distributed.world import World
from .evaluate import evaluate
from .export.export import export
from .prediction.predict_run import predict_run


def run(job: Job, composed: Composed, world: World, afterwards: list[Callable[[Failure], None]]) -> None:
    """All ranks call it. `afterwards` collects the functions to call if it fails."""
    if job.verb == EXPORT:
        export(job, composed, world, afterwards)
    elif job.verb == PREDICT:
        predict_run(job, composed, world)
    else:
        evaluate(job, composed, world)
