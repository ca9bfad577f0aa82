"""Mistakes in a beginner's config, with a model, data and a task that are right."""

from tests.runs.mistakes.project import Mistake, bug, wrong

FUNCTIONS = {
    "mine/functions.py": """from torch import nn

NOTHING = None


def number():
    return 3


def nothing():
    pass


def net(width):
    return nn.Linear(4, width)
"""
}
RAISES = {"mine/functions.py": 'def net():\n    raise ValueError("mine")  # here\n'}
NESTED = {"mine/nested/__init__.py": "", "mine/nested/dep.py": ""}
NO_INIT = {"other/deep.py": "", "other/deep/net.py": "from torch import nn\n"}
COLLATES = {
    "mine/collates.py": """import torch


def nothing(samples):
    pass


def taking():
    return []


def raising(samples):
    raise ValueError("mine")


def pairs(samples):
    return zip(*samples)


def one(samples):
    return torch.stack([x for x, _ in samples])
"""
}
SAMPLER = {
    "mine/samplers.py": """import numpy as np

from phalanx.samplers import Sampler


class Half(Sampler):
    def set_up(self, sampled):
        return sampled.samples

    def indices(self, start, stop):
        return np.arange(start, (start + stop) // 2)
"""
}
TORCHS = "~schedule", "+schedule={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, interval: step, %s}"
LBFGS = (
    "optim._target_=torch.optim.LBFGS",
    "~optim.momentum",
    "~optim.nesterov",
    "~optim.weight_decay",
    "~optim.fused",
)


def words(what: str, says: str, *typed: str, files: dict[str, str] | None = None) -> Mistake:
    return wrong(what, {}, says, *typed, files=files)


TARGETS = [
    words(
        "a target that gives a number",
        "returned an int, no Module",
        "model._target_=mine.functions.number",
        files=FUNCTIONS,
    ),
    words(
        "a target that gives nothing",
        "returned None, no Dataset",
        "data.train._target_=mine.functions.nothing",
        files=FUNCTIONS,
    ),
    words("a target that is None", "cannot be called", "model._target_=mine.functions.NOTHING", files=FUNCTIONS),
    words("a target that raises", "net says: mine", "model._target_=mine.functions.net", files=RAISES),
    words(
        "a target that lacks an argument",
        "width is not set and net needs it",
        "model._target_=mine.functions.net",
        files=FUNCTIONS,
    ),
    words("a target that is partial", "makes no Module … Leave it out", "+model._partial_=true"),
    words("a class with a typo", "Did you mean mine.parts.Net?", "model._target_=mine.parts.Nte"),
    words("a module with a typo", "Did you mean mine.parts?", "model._target_=mine.prats.Net"),
    words("a class without its module", "names no class or function … package.module", "model._target_=Net"),
    words("an argument with a typo", "Did you mean model.width?", "+model.widht=9"),
    words("a package with a typo", "there is no package yours … PYTHONPATH", "model._target_=yours.parts.Net"),
    words(
        "a module in a package that has others", "mine.nested.dep?", "model._target_=mine.nested.deep.Net", files=NESTED
    ),
    words(
        "a folder without __init__.py beside a file of its name",
        "other.deep.net",
        "model._target_=other.deep.net.Net",
        files=NO_INIT,
    ),
    words("a file where a package is meant", "mine.parts.net", "model._target_=mine.parts.net.Net"),
    words(
        "a nested target with a wrong argument",
        "is no argument of number",
        "+model.width={_target_: mine.functions.number, x: 3}",
        files=FUNCTIONS,
    ),
]
OPTIM = [
    words(
        "a group that matches nothing",
        "groups.0.match=encoder matches the name of no parameter … layers.0.weight",
        "optim.groups=[{match: encoder, lr: 0.1}]",
    ),
    words("a group by half an expression", "is no regular expression", "optim.groups=[{match: '(', lr: 0.1}]"),
    words("a group that matches by nothing", "optim.groups.0 has no match", "optim.groups=[{lr: 0.1}]"),
    words(
        "a group with an option of nobody",
        "learning_rate is no argument of SGD",
        "optim.groups=[{match: weight, learning_rate: 0.1}]",
    ),
    words("a group whose rate is text", "lr=high is no number", "optim.groups=[{match: weight, lr: high}]"),
    words("an optimizer that asks for a closure", "closure", *LBFGS),
    words(
        "a key of what was taken out",
        "~optim takes out what optim.lr=0.1 sets a key of",
        "~optim",
        "+optim={_target_: torch.optim.SGD, lr: 1.0}",
    ),
    words("an optimizer that is a layer", "no class derived from Optimizer", "optim._target_=torch.nn.Linear"),
    words("a rate below zero", "Invalid learning rate: -1", "optim.lr=-1"),
    words("a rate that is text", "optim.lr=fast does not fit", "optim.lr=fast"),
    words("an option of another optimizer", "optim.betas is no argument of SGD", "+optim.betas=[0.9,0.99]"),
    words("a schedule with a typo", "Did you mean cosine?", "schedule=cosin"),
    words(
        "a schedule of torch that is not partial",
        "Type schedule._partial_=true",
        "~schedule",
        "+schedule={_target_: torch.optim.lr_scheduler.StepLR, step_size: 2}",
    ),
    words(
        "a schedule of torch with a wrong argument",
        "schedule.step is no argument of StepLR",
        TORCHS[0],
        TORCHS[1] % "step: 2",
    ),
    words(
        "a plateau without evaluations",
        "data.eval=null",
        "schedule=plateau",
        "data.eval=null",
        "eval.every=null",
        "checkpoint.best_metric=null",
    ),
]
TRAIN = [
    words("freezing what is not there", "match=backbone matches the name of no", "train.freeze=[{match: backbone}]"),
    words("freezing all there is", "nothing would train", "train.freeze=[{match: '.*'}]"),
    words("freezing by half an expression", "is no regular expression", "train.freeze=[{match: '['}]"),
    words("freezing until before", "is no step after 5", "train.freeze=[{match: layers.0, from: 5, until: 2}]"),
    words("freezing with a word of nobody", "has to, and a rule has match", "train.freeze=[{match: layers.0, to: 2}]"),
    words("weights of a run that is not there", "runs/nowhere is not there", "train.init_from=runs/nowhere"),
    words(
        "weights in a file of text",
        "weights.pt is not loaded",
        "train.init_from=weights.pt",
        files={"weights.pt": "weights"},
    ),
    words("weights of an empty file", "weights.pt", "train.init_from=weights.pt", files={"weights.pt": ""}),
    words("weights in a folder of code", "holds no weights", "train.init_from=mine"),
    words("a run to go on with that is not there", "is no run's folder", "train.extend_from=runs/nowhere"),
    words("two beginnings", "Leave one out", "train.init_from=a", "train.extend_from=b"),
    words("a micro-batch that does not fit", "Type train.micro_batch=2", "train.micro_batch=3"),
    words("no steps", "train.steps=0 is out of range", "train.steps=0"),
    words("a precision of nobody", "train.precision is auto, fp32", "train.precision=fp8"),
    words(
        "a metric with a typo",
        "is no metric of the task … accuracy",
        "checkpoint.best_metric=acuracy",
        "checkpoint.best_mode=max",
    ),
    words("a metric of nobody", "whether more or less of it is better", "checkpoint.best_metric=gain"),
    words("blocks that are not there", "matches the name of no module", "train.checkpoint_activations=encoder"),
]
DATA = [
    words(
        "a collate that gives nothing",
        "data.collate returned nothing for 8 samples … collates.py:4 ",
        "data.collate={_target_: mine.collates.nothing, _partial_: true}",
        files=COLLATES,
    ),
    words(
        "a collate that takes nothing",
        "taking is called with (samples) and takes () … mine/collates.py:8. Write def taking(samples)",
        "data.collate={_target_: mine.collates.taking, _partial_: true}",
        files=COLLATES,
    ),
    Mistake(
        "a collate that raises",
        {},
        "collates.py … ValueError: mine",
        ("data.collate={_target_: mine.collates.raising, _partial_: true}",),
        code=1,
        files=COLLATES,
    ),
    words(
        "a collate that gives what is no batch",
        "data.collate returned a zip for 8 samples … pairs at … collates.py:16. It can be read once: write list(…)",
        "data.collate={_target_: mine.collates.pairs, _partial_: true}",
        files=COLLATES,
    ),
    Mistake(
        "a collate without what the task reads",
        {"x, y = batch": "x, y = batch  # here"},
        "made by data.collate, one at … collates.py:20 … too many values to unpack",
        ("data.collate={_target_: mine.collates.one, _partial_: true}",),
        code=1,
        files=COLLATES,
    ),
    words("workers below zero", "data.workers=-1 is out of range", "data.workers=-1"),
    words(
        "a set of a name that is reserved",
        "data.eval.train has a name that is reserved",
        *("~data.eval._target_", "~data.eval.points", "~data.eval.seed"),
        "+data.eval.train={_target_: mine.parts.Points}",
    ),
]
WEIGHTED = "data.sampler={_target_: phalanx.samplers.Weighted, weights: %s}"
SAMPLERS = [
    words("weights of the wrong length", "has 3 numbers, and the data set has 64 samples", WEIGHTED % [1, 2, 3]),
    words("weights below zero", "64 in all are negative", WEIGHTED % ([-1] * 64)),
    words("weights of zero", "are all 0, so no sample could be drawn", WEIGHTED % ([0] * 64)),
    words("weights of nobody", "names no attribute of the data set, a Points", WEIGHTED % "importance"),
    words("balance without labels", "neither an attribute labels nor targets", WEIGHTED % "balance"),
    words(
        "a sampler with a typo",
        "Did you mean phalanx.samplers.Weighted?",
        "data.sampler={_target_: phalanx.samplers.Weightd}",
    ),
    words(
        "a sampler of torch", "no class derived from Sampler", "data.sampler={_target_: torch.utils.data.RandomSampler}"
    ),
    words(
        "a part that is not there",
        "has 99, and the data set has",
        "data.sampler={_target_: phalanx.samplers.Subset, indices: [99]}",
    ),
    words("no part", "chooses no sample", "data.sampler={_target_: phalanx.samplers.Subset, indices: []}"),
    words("no repetition", "times=0 leaves no sample", "data.sampler={_target_: phalanx.samplers.Repeated, times: 0}"),
    words(
        "buckets by nothing",
        "length=size names no attribute",
        "data.sampler={_target_: phalanx.samplers.Buckets, length: size}",
    ),
    words(
        "a batch of more than there is",
        "Type data.drop_last=false, or train.gl",
        "train.global_batch=100",
        "data.drop_last=true",
    ),
    words(
        "a sampler of no positions",
        "Half.indices(0, 8) returned",
        "data.sampler={_target_: mine.samplers.Half}",
        files=SAMPLER,
    ),
]
OTHERS = [
    words("a key of the run with a typo", "Did you mean run.name?", "+run.nme=a"),
    words("imports of nobody", "no module nobodys", "run.imports=[nobodys]"),
    words(
        "imports that raise",
        "importing it fails",
        "run.imports=[mine.raising]",
        files={"mine/raising.py": "1 / 0  # here\n"},
    ),
    words("a metric of a set that is not there", "is no metric of the task", "checkpoint.best_metric=val/accuracy"),
    words("evaluations at no step", "eval.every=0 is out of range", "eval.every=0"),
    words("an optimizer of nobody", "there is no package lion", "optim._target_=lion.Lion"),
    words("half an expression for names", "is no regular expression", "train.init_from=mine", "train.init_skip='('"),
    words("names to skip and no file", "of train.init_from are read, which is not set", "train.init_skip=head"),
    words("a folder of configs that is not there", "there is no folder", "--config-dir=conf"),
    bug(
        "an evaluation set of other shapes",
        {
            "class Loss(": "class Wide(Points):\n    def __getitem__(self, index):\n"
            "        return self.x[index][:2], self.y[index]\n\n\nclass Loss("
        },
        "batch (16, 2) float32",
        "data.eval._target_=mine.parts.Wide",
    ),
]
STOPPING = [
    words(
        "a metric to stop by with a typo",
        "is no metric of the task",
        "early_stop.metric=acuracy",
        "early_stop.mode=max",
    ),
    words("a metric to stop by of nobody", "Type early_stop.mode=max", "early_stop.metric=gain"),
    words("no patience", "early_stop.patience=0 is out of range", "early_stop.metric=loss", "early_stop.patience=0"),
    words("a way to stop that is none", "early_stop.mode is max or min", "early_stop.mode=up"),
    words("a metric in place of the group", "Type one of them: early_stop.metric", "early_stop=loss"),
    words("stopping by one evaluation", "Type eval.every=100", "early_stop.metric=loss", "eval.every=null"),
    words("a time that is none", "Type train.time_limit=12:00:00", "train.time_limit=soon"),
    words("predictions of less than none", "eval.predictions=-1 is out of range", "eval.predictions=-1"),
]
TRACKERS = [
    words("a sink that is a layer", "no class derived from Sink", "+sinks.mine._target_=mine.parts.Net"),
    words("a sink of no class", "Type sinks.mine._target_=package.module.Class", "+sinks.mine.level=3"),
    words("a sink with a typo", "mine.parts has no Snik", "+sinks.mine._target_=mine.parts.Snik"),
    words("a tracker with a typo", "Did you mean mlflow.enabled?", "mlfow.enabled=true"),
    words("a mode of W&B that is none", "wandb.mode is auto, online", "wandb.mode=on"),
    words("an address in place of a switch", "mlflow.enabled is true or false", "mlflow.enabled=http://localhost:5000"),
]
IN_THE_CONFIG = [*TARGETS, *OPTIM, *TRAIN, *DATA, *SAMPLERS, *OTHERS, *STOPPING, *TRACKERS]
