"""The environment variables that a job, a step or a launcher sets for its own processes."""

import re

# A new job or a new start must not inherit them from the shell that the command is typed in.
_INHERITED = re.compile(
    r"SLURMD?_(?!CONF$|CLUSTERS$)\w+|SRUN_\w+|PMIX?_\w+|TORCHELASTIC_\w+|PHALANX_\w+"
    r"|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)"
)


def is_job_variable(variable: str) -> bool:
    """Whether each job, step or launcher sets the environment variable anew."""
    return _INHERITED.fullmatch(variable) is not None
