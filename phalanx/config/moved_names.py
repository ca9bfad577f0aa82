"""Where what configs and users' modules name was before it was part of the package `phalanx`."""

MOVED = {  # the name of then -> the name of now
    "train.models.convnet.ConvNet": "phalanx.train.models.convnet.ConvNet",
    "train.models.mlp.MLP": "phalanx.train.models.mlp.MLP",
    "train.data.digits.Digits": "phalanx.train.data.digits.Digits",
    "train.data.images.Images": "phalanx.train.data.images.Images",
    "train.data.mnist.MNIST": "phalanx.train.data.mnist.MNIST",
    "train.data.augment.ShiftRotate": "phalanx.train.data.augment.ShiftRotate",
    "train.data.augment.Augment": "phalanx.train.loading.batch.Augment",
    "train.tasks.task.Ratio": "phalanx.train.tasks.task.Ratio",
    "train.tasks.task.Task": "phalanx.train.tasks.task.Task",
    "train.tasks.classification.Classification": "phalanx.train.tasks.classification.Classification",
    "train.schedule.Schedule": "phalanx.train.optim.schedule.Schedule",
    "train.schedule.Constant": "phalanx.train.optim.schedule.Constant",
    "train.schedule.Cosine": "phalanx.train.optim.schedule.Cosine",
    "train.schedule.Linear": "phalanx.train.optim.schedule.Linear",
    "train.schedule.OneCycle": "phalanx.train.optim.schedule.OneCycle",
    "train.schedule.Step": "phalanx.train.optim.schedule.Step",
}
_OF_CLASS = {name.rpartition(".")[2]: name for name in MOVED}


def former(target: str) -> str:
    """The name of then for a class of ours, by whichever name of now; any other as it is."""
    package, _, name = target.rpartition(".")
    return _OF_CLASS.get(name, target) if package.partition(".")[0] == "phalanx" else target
