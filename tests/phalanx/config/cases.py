"""What is set wrong, and what the one message about it must say."""

import gzip
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MLP = ("model=mlp", "model.hidden=[8]", "train.steps=5", "eval.every=null")
_HELD_OUT = "{_target_: phalanx.data.Digits, split: held_out}"
NAMED = (*MLP, "~data.eval", f"+data.eval={{val: {_HELD_OUT}, hard: {_HELD_OUT}}}")
MNIST = ("experiment=mnist", *MLP, "data.train.root=mnist", "data.train.download=false")


@dataclass(frozen=True)
class Case:
    """Overrides, and the parts of the message. `prepare` lays out files in the folder where the command is typed."""

    words: tuple[str, ...]
    says: tuple[str, ...]
    ranks: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None

    def __str__(self) -> str:
        name = " ".join([*(f"{key}={value}" for key, value in self.environ.items()), *self.words])
        name = name.encode("unicode_escape").decode()
        return f"{name[:70] or '(nothing)'}{f' on {self.ranks}' if self.ranks > 1 else ''}"


def case(
    *words: str,
    says: str,
    ranks: int = 1,
    environ: Mapping[str, str] | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Case:
    """`says`: parts of the message, separated by " … "."""
    return Case(words, tuple(says.split(" … ")), ranks, environ or {}, prepare)


def configs(**files: str) -> Callable[[Path], None]:
    """Lays out a folder `mine` of configs, by their names in it."""

    def prepare(folder: Path) -> None:
        for name, text in files.items():
            file = folder / "mine" / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return prepare


KEYS = [
    case("train.step=5", says="train.step is not a key … Did you mean train.steps? … --cfg job"),
    case("train.step=5", says="train.step is not a key … Did you mean train.steps?", ranks=2),
    case("trian.steps=5", says="trian.steps is not a key … Did you mean train.steps?"),
    case("lr=0.1", says="lr is not a key … Did you mean optim.lr?"),
    case("train.lr=0.1", says="train.lr is not a key … Did you mean optim.lr?"),
    case("experimnt=mnist", says="experimnt is not a key … Did you mean experiment?"),
    case("colour=blue", says="colour is not a key of the config … --cfg job"),
    case("model.clases=3", says="model.clases is not a key … Did you mean model.classes? … +model.clases=3"),
    case("+train.foo=3", says="train.foo is not a key"),
    case("++foo.bar=3", says="foo is not a key"),
    case("+optim.lr=3", says="optim.lr is in the config already … Type optim.lr=3"),
    case("~train.stepss", says="train.stepss is not a key … Did you mean train.steps?"),
    case("~train.global_batch", says="train.global_batch has no value … Type train.global_batch="),
    case("model=mpl", says="model=mpl: there is no such model … Did you mean mlp? … alexnet, … mlp"),
    case("experiment=nothing", says="experiment=nothing: there is no such experiment … digits, … mnist"),
    case(
        *("--config-dir=mine", "experiment=new", "model=mlp"),
        says="model=mlp is an option of Phalanx's own … mine/model/mlp.yaml would not be read … another name",
        prepare=configs(**{"model/mlp": "_target_: torch.nn.Identity", "experiment/new": "# @package _global_"}),
    ),
    case(
        *("--config-dir=mine", "experiment=new"),
        says="experiment=new does not compose … Begin that file with the line: # @package _global_",
        prepare=configs(**{"experiment/new": "defaults: [override /model: null]"}),
    ),
    case(
        "data.sampler={_target_: torch.utils.data.SequentialSampler, data_source: []}",
        says="is no class derived from Sampler of phalanx, but from that of torch, so it is not called",
    ),
    case("~data.eval", says="data.eval has no value … or data.eval=null for none"),
    case("model=null", says="model=null: there is no such model … alexnet, … mlp"),
    case("~model", says="model has no value … Type model="),
    case("model.hidden=[8]", "model=mlp", "train.step=3", says="train.step is not a key"),
    case("--config-name=nothing", says="'nothing' … Type --config-dir=FOLDER and --config-name=NAME"),
    case("--config-dir=nothing", says="--config-dir=nothing … there is no folder … Type an existing one"),
    case("hydra.searchpath=[file:///nothing]", says="hydra.searchpath=[file:///nothing] … /nothing is not available"),
]

TYPES = [
    case("train.steps=many", says="train.steps=many does not fit … a whole number or null … Type train.steps=1"),
    case("train.steps=1.5", says="train.steps=1.5 does not fit … a whole number"),
    case("train.steps=true", says="train.steps=true does not fit … a whole number"),
    case("train.steps=[1]", says="train.steps=[1] does not fit … a whole number"),
    case("train.steps={a:1}", says="train.steps={a:1} does not fit … a whole number"),
    case("train.steps=nan", says="train.steps=nan does not fit … a whole number"),
    case("train.epochs=true", says="train.epochs=true does not fit … a number or null"),
    case("train.epochs=long", says="train.epochs=long does not fit … a number or null"),
    case("train.global_batch=null", says="train.global_batch=null does not fit … a whole number"),
    case("train.compile=maybe", says="train.compile=maybe does not fit … true or false … Type train.compile=true"),
    case("train.compile=2", says="train.compile=2 does not fit … true or false"),
    case("train.precision=[fp32]", says="train.precision=[fp32] does not fit … auto, fp32"),
    case("train.precision=fp8", says="train.precision=fp8 does not fit … auto, fp32, tf32, bf16"),
    case("train=5", says="train=5 takes the place of a group of keys … train.steps"),
    case("run.root=null", says="run.root=null does not fit … text"),
    case("wandb.tags=3", says="wandb.tags=3 does not fit … a list of texts … Type wandb.tags=[a,b]"),
    case("run.accept=yes", says="run.accept=yes does not fit … changed or null"),
    case("train.threads=foo", says="train.threads=foo does not fit … a whole number or auto"),
    case("train.threads=1.5", says="train.threads=1.5 does not fit … a whole number or auto"),
    case("model.classes=ten", says="model.classes=ten does not fit … ConvNet takes int"),
    case("model.dropout=true", says="model.dropout=true does not fit … ConvNet takes float"),
    case("optim.lr=fast", says="optim.lr=fast does not fit … Adam takes float"),
    case("optim.decay_1d=some", says="optim.decay_1d must be true or false … Type ++optim.decay_1d=true"),
    case("optim.layer_decay=2", says="optim.layer_decay=2 is no factor between 0 and 1 … Type optim.layer_decay=0.75"),
    case("optim.groups=[{match:bias,lrr:1}]", says="optim.groups.0.lrr is no argument of Adam"),
    case("optim.groups=[{lr:1}]", says="optim.groups.0 has no match"),
    case(
        "schedule=plateau",
        "eval.every=null",
        says="schedule.metric=loss decides after evaluations … Type eval.every=100",
    ),
    case("schedule=plateau", "data.eval=null", says="schedule.metric=loss is of evaluations, and data.eval=null"),
    case(
        "~schedule",
        "+schedule={_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,step_size:3}",
        says="schedule.interval=null does not say when … schedule.interval=epoch",
    ),
    case("optim.betas=[a,0.9]", says="optim.betas=[a, 0.9] does not fit … Adam takes tuple"),
]

LIMITS = [
    case("train.steps=0", says="train.steps=0 is out of range … at least 1"),
    case("train.steps=-1", says="train.steps=-1 is out of range … at least 1"),
    case("train.global_batch=0", says="train.global_batch=0 is out of range … at least 1"),
    case("train.micro_batch=-8", says="train.micro_batch=-8 is out of range … at least 1"),
    case("train.threads=0", says="train.threads=0 is out of range … at least 1"),
    case("train.epochs=0", says="train.epochs=0.0 is out of range … more than 0"),
    case("train.epochs=inf", says="train.epochs=inf is out of range"),
    case("train.clip_norm=nan", says="train.clip_norm=nan is out of range … more than 0"),
    case("train.ema_decay=1.5", says="train.ema_decay=1.5 is out of range … at least 0 and at most 1"),
    case("seed=-1", says="seed=-1 is out of range … at least 0"),
    case("seed=9223372036854775808", says="seed=9223372036854775808 is out of range"),
    case("data.workers=-1", says="data.workers=-1 is out of range … at least 0"),
    case("eval.batch=0", says="eval.batch=0 is out of range"),
    case("checkpoint.keep=0", says="checkpoint.keep=0 is out of range"),
    case("log.every=0", says="log.every=0 is out of range"),
    case("world.timeout_s=0", says="world.timeout_s=0.0 is out of range … at least 1"),
    case("wandb.finish_timeout_s=60", says="wandb.finish_timeout_s=60.0 is out of range … at most 30"),
    case("optim.lr=nan", says="optim.lr=nan is not finite"),
    case("optim.lr=nan", says="optim.lr=nan is not finite", ranks=2),
    case("optim.lr=inf", says="optim.lr=inf is not finite"),
    case("optim.betas=[nan,0.9]", says="optim.betas.0=nan is not finite"),
    case("optim.lr=-1", says="optim cannot be built … torch.optim.Adam … Invalid learning rate: -1"),
    case("schedule.final=2", says="schedule cannot be built … final is 2"),
    case("schedule.warmup_steps=-1", says="schedule cannot be built … warmup_steps is -1"),
    case("data.augment.rotate=400", says="data.augment cannot be built … rotate=400"),
    case("model.dropout=2", says="model cannot be built … dropout probability … 2"),
    case("model=mlp", "model.hidden=[-8]", says="model cannot be built … phalanx.models.MLP … negative size"),
    case("model=resnet18", "model.num_classes=-1", says="model cannot be built … resnet18 … negative size"),
    case("task.classes=1", says="task.classes=1 … at least 2"),
    case("train.steps=null", "train.epochs=null", says="Neither train.steps nor train.epochs … Type train.epochs=10"),
    case("world.timeout_s=20", "wandb.mode=offline", says="world.timeout_s=20 … wandb.finish_timeout_s=30 … Type"),
    case("checkpoint.asynchronous=true", says="checkpoint.asynchronous"),
]

RANKS = [
    case("train.micro_batch=48", says="train.global_batch=64 … train.micro_batch=48 … Type train.micro_batch=32"),
    case("train.micro_batch=64", says="too few for 2 ranks … Type train.micro_batch=32", ranks=2),
    case("train.global_batch=1", says="train.global_batch=1 … 2 ranks … Type train.global_batch=2", ranks=2),
    case(
        *("train.global_batch=65", "parallel.sync_batchnorm=true"),
        says="parallel.sync_batchnorm needs equal shares … Type train.global_batch=66",
        ranks=2,
    ),
    case(environ={"RANK": "", "WORLD_SIZE": "2"}, says="RANK= in the environment is no whole number … torchrun"),
    case(environ={"RANK": "two"}, says="RANK=two in the environment is no whole number … torchrun"),
    case(environ={"RANK": "0", "WORLD_SIZE": "0"}, says="RANK=0 is not below WORLD_SIZE=0 … torchrun"),
    case(environ={"TORCHELASTIC_RESTART_COUNT": "x"}, says="TORCHELASTIC_RESTART_COUNT=x … torchrun"),
    case(environ={"PHALANX_RESTART_COUNT": "x"}, says="PHALANX_RESTART_COUNT=x … torchrun"),
    case(environ={"SLURM_RESTART_COUNT": "x"}, says="SLURM_RESTART_COUNT=x in the environment is no whole number"),
]

HARDWARE = [
    case(*MLP, "world.device=cuda", says="world.device=cuda needs a GPU … Type world.device=cpu"),
    case(*MLP, "world.device=cuda", says="world.device=cuda needs a GPU … Type world.device=cpu", ranks=2),
    case(*MLP, "world.backend=nccl", says="world.backend=nccl needs a GPU … world.backend=auto"),
    case(
        *MLP, "world.backend=nccl", "world.device=cpu", says="world.backend=nccl needs GPUs … Type world.backend=gloo"
    ),
    case(*MLP, "train.precision=tf32", says="train.precision=tf32 needs a GPU … Type train.precision=fp32"),
    case(*MLP, "train.precision=fp16", says="train.precision=fp16 needs a GPU … Type train.precision=bf16"),
    case(*MLP, "train.precision=fp16", says="needs a GPU … Type train.precision=bf16", ranks=2),
    case(
        *MLP, "parallel.sync_batchnorm=true", says="sync_batchnorm=true needs GPUs … Type parallel.sync_batchnorm=false"
    ),
]


def idx(shape: tuple[int, ...], value: int = 0) -> bytes:
    """An IDX file of bytes that are all `value`."""
    size = 1
    for n in shape:
        size *= n
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape) + bytes([value]) * size


def mnist(**files: bytes) -> Callable[[Path], None]:
    """The four files, 80 training images and 10 for the test, but for those given."""
    good = {
        "train_images": ("train-images-idx3-ubyte", idx((80, 28, 28))),
        "train_labels": ("train-labels-idx1-ubyte", idx((80,))),
        "test_images": ("t10k-images-idx3-ubyte", idx((10, 28, 28))),
        "test_labels": ("t10k-labels-idx1-ubyte", idx((10,))),
    }

    def prepare(folder: Path) -> None:
        (folder / "mnist").mkdir()
        for name, (file, content) in good.items():
            (folder / "mnist" / file).write_bytes(files.get(name, content))

    return prepare


def truncated_gz(folder: Path) -> None:
    mnist()(folder)
    (folder / "mnist" / "train-images-idx3-ubyte").unlink()
    (folder / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx((80, 28, 28)))[:-20])


NO_NETWORK = """
import os
from pathlib import Path

class MNIST:
    def __init__(self, root, download):
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\\nno route to host")
"""


def no_network(folder: Path) -> None:
    """A torchvision that cannot fetch."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").touch()
    (folder / "torchvision" / "datasets.py").write_text(NO_NETWORK)


OWN = """
import os, pathlib
import torch
from torch.utils.data import Dataset, IterableDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(1, 28, 28), 0)] * 100)

class Nothing(Dataset):
    def __len__(self):
        return 0
    def __getitem__(self, index):
        raise IndexError(index)

class Strange(torch.nn.Module):
    def __init__(self, inner=None):
        raise ValueError("no\\nluck")

class Lost(torch.nn.Module):
    import_of_nothing = None
"""


def own(folder: Path) -> None:
    """A package of the user's own."""
    (folder / "own.py").write_text(OWN)
    (folder / "needy.py").write_text("import a_package_that_nobody_has\n")
    (folder / "former.py").write_text("from train.tasks.task import Task, Ratio\n")


def former(folder: Path) -> None:
    """A config folder of the user's, from before all of Phalanx was in one package."""
    for group in ("task", "experiment"):
        (folder / "conf" / group).mkdir(parents=True)
    target = "_target_: train.tasks.classification.Classification\n"
    (folder / "conf/task/former.yaml").write_text(target)
    (folder / "conf/experiment/former.yaml").write_text(f"# @package _global_\ntask:\n  {target}")


def own_case(*words: str, says: str) -> Case:
    return case(*MLP, *words, says=says, prepare=own, environ={"PYTHONPATH": "."})


DATA = [
    case(*MNIST, says="mnist lacks … train-images-idx3-ubyte … data.train.root"),
    case(*MNIST, says="mnist lacks … train-images-idx3-ubyte … data.train.root", ranks=2),
    case(*MNIST, prepare=lambda folder: (folder / "mnist").mkdir(), says="mnist lacks … t10k-labels … data.train.root"),
    case(*MNIST, prepare=mnist(train_images=b"garbage"), says="train-images-idx3-ubyte is no IDX file … b'garb'"),
    case(*MNIST, prepare=mnist(train_images=idx((80, 28, 28))[:999]), says="train-images-idx3-ubyte announces … holds"),
    case(*MNIST, prepare=mnist(train_images=b""), says="train-images-idx3-ubyte is no IDX file"),
    case(*MNIST, prepare=mnist(train_labels=idx((79,))), says="(80, 28, 28) … (79,) … data.train.root"),
    case(
        *MNIST,
        prepare=mnist(train_labels=idx((80,), 10)),
        says="data.train … 10 … task.classes=10 … Type task.classes=11",
    ),
    case(*MNIST, prepare=mnist(test_labels=idx((10,), 99)), says="data.eval … 99 … Type task.classes=100"),
    case(*MNIST, prepare=mnist(train_images=idx((0, 28, 28)), train_labels=idx((0,))), says="mnist … (0, 28, 28)"),
    case(*MNIST, prepare=truncated_gz, says="train-images-idx3-ubyte.gz cannot be read … Fetch it anew"),
    case(
        *(*MNIST, "data.train.download=true", "data.cache=/dev/null/cache"),
        prepare=no_network,
        environ={"PYTHONPATH": "."},
        says="mnist lacks … data.train.root … fetching them did not work here … Error downloading",
    ),
    case(*MNIST, "data.train.split=dev", prepare=mnist(), says="split 'dev' … split=train"),
    case(*MLP, "data.train.split=dev", says="split 'dev' … split=train"),
    own_case(
        "data.train={_target_:own.Stream}",
        "~data.train.split",
        "train.steps=null",
        says="data.train is a stream … train.epochs=10 … Type train.steps",
    ),
    own_case("data.train={_target_:own.Nothing}", "~data.train.split", says="data.train is empty"),
    own_case("data.eval={_target_:own.Nothing}", "~data.eval.split", says="data.eval is empty"),
    case(*MLP, "model.classes=5", says="(64, 5) … task.classes=10 … Type"),
    case(*MLP, "checkpoint.best_metric=f1", says="checkpoint.best_metric=f1 … Type checkpoint.best_metric=loss"),
    case(*MLP, "checkpoint.best_metric=f1", says="checkpoint.best_metric=f1 … accuracy", ranks=2),
    case(
        *NAMED,
        "checkpoint.best_metric=vall/loss",
        says="=vall/loss is no metric … val/loss, val/accuracy, hard/loss",
        ranks=2,
    ),
    case(*NAMED, "checkpoint.best_metric=test/loss", says="by the split test: … at the end. Type val/loss, hard/loss"),
    case(*NAMED, "checkpoint.best_metric=hard/psnr", says="best_metric=hard/psnr: no name tells … best_mode=max"),
    case(*NAMED, "+data.eval.test={_target_: a.b}", says="data.eval.test has a name that is reserved … data.test=…"),
    case(*NAMED, "+data.eval.train={_target_: a.b}", says="data.eval.train has a name that is reserved"),
    case(*NAMED, "+data.eval.more=5", says="data.eval.more is 5, and should be a data set … +data.eval.more._target_="),
    case("~data.eval", "+data.eval={a b: {_target_: a.b}}", says="data.eval has a set called 'a b' … letters, digits"),
    case("~data.eval", "+data.eval={}", says="data.eval names no data set. Type data.eval=null"),
    case("data.eval={val: {_target_: a.b}}", says="data.eval.val._target_=a.b: there is no package a"),
    case("data.eval=null", "checkpoint.best_metric=null", "eval.first=true", says="eval.first=true … data.eval=null"),
]

TARGETS = [
    case(
        "model._target_=phalanx.train.models.convnet.ConvNt",
        says="phalanx.train.models.convnet has no ConvNt … Did you mean phalanx.train.models.convnet.ConvNet?",
    ),
    case(
        "model._target_=phalanx.train.models.convnt.ConvNet",
        says="no module phalanx.train.models.convnt … Did you mean phalanx.train.models.convnet?",
    ),
    case("model._target_=phalanx.models.ConvNt", says="no ConvNt … Did you mean phalanx.models.ConvNet?"),
    case(
        "model._target_=train.models.convnet.ConvNet",
        says="is called phalanx.models.ConvNet now. Type model._target_=phalanx.models.ConvNet",
    ),
    case(
        "+model.inner={_target_:train.models.mlp.MLP}",
        says="model.inner._target_=train.models.mlp.MLP … Type model.inner._target_=phalanx.models.MLP",
    ),
    case(
        "--config-dir=conf",
        "task=former",
        prepare=former,
        says="task._target_=train.tasks.classification.Classification is called … Type task._target_=phalanx.tasks.C",
    ),
    case("--config-dir=conf", "experiment=former", prepare=former, says="Type task._target_=phalanx.tasks.C", ranks=2),
    own_case("task._target_=former.Mine", says="former.py:1 imports … Write there: from phalanx import Task, Ratio"),
    case(
        *(*MLP, "task._target_=former.Mine"),
        says="former.py:1 imports … Write there: from phalanx import Task, Ratio",
        prepare=own,
        environ={"PYTHONPATH": "."},
        ranks=2,
    ),
    case("schedule._target_=train.schedule.Step", says="Type schedule._target_=phalanx.schedules.Step"),
    case("model._target_=nobodys.Model", says="no package nobodys … PYTHONPATH"),
    case("model._target_=ConvNet", says="model._target_=ConvNet names no class … package.module.Class"),
    case("model._target_=null", says="names no class … Type model._target_=package.module.Class"),
    case("model._target_='..a.B'", says="model._target_=..a.B names no class"),
    case(
        "model._target_=os.getpid",
        says="model.classes is no argument of getpid … It takes: nothing … override /model: null",
    ),
    case(
        *("~model.classes", "~model.dropout", "model._target_=os.getpid"),
        says="model: os.getpid returned an int, no Module. Type model._target_=",
    ),
    case("model._target_=os.sep", says="model._target_=os.sep is a str, which cannot be called"),
    case("+model.inner={_target_:os.getpd}", says="model.inner._target_=os.getpd: os has no getpd … os.getpid?"),
    case("+model.inner=[{_target_:math.pi}]", says="model.inner.0._target_=math.pi is a float, which cannot be called"),
    case("model._target_=torch.Tensor", says="torch.Tensor is no class derived from Module, so it is not called"),
    case("optim._target_=torch.nn.Linear", says="optim._target_=torch.nn.Linear is no class derived from Optimizer"),
    case(
        "data.train._target_=phalanx.train.models.mlp.MLP",
        says="data.train._target_=phalanx.train.models.mlp.MLP is no class derived from Dataset",
    ),
    case(
        "schedule._target_=phalanx.train.schedules.schedule.Schedule",
        says="schedule._target_=phalanx.train.schedules.schedule.Schedule is abstract",
    ),
    case("optim._target_=torch.optim.Adm", says="torch.optim has no Adm … Did you mean torch.optim.Adam?"),
    case(
        "+model.clases=3",
        says="model.clases is no argument of ConvNet … Did you mean model.classes? … classes, dropout",
    ),
    case("~model.classes", says="model.classes is not set and ConvNet needs it … Type +model.classes="),
    case("+optim.nestrov=true", says="optim.nestrov is no argument of Adam"),
    own_case(
        "model._target_=own.Strange",
        "~model.inputs",
        "~model.hidden",
        "~model.classes",
        "~model.dropout",
        says="model cannot be built: own.Strange says: no luck",
    ),
    own_case("model._target_=needy.Model", says="needy imports a_package_that_nobody_has, which is not installed"),
]

SYNTAX = [
    case("train.steps", says="'train.steps' is no key=value … train.steps=100"),
    case("=5", says="'=5' has no key"),
    case("train..steps=5", says="'train..steps=5' begins with no key that can be read"),
    case('run.name="a', says="""run.name="a cannot be read … Type 'run.name="a"'"""),
    case("run.name=a'b", says="run.name=a'b cannot be read … Type"),
    case("run.name=ü", says="""run.name=ü cannot be read … Type 'run.name="ü"'"""),
    case("run.name=a=b", says="""run.name=a=b cannot be read … Type 'run.name="a=b"'"""),
    case("wandb.tags=[a", says="wandb.tags=[a cannot be read … wandb.tags=[a,b]"),
    case("run.name=${nothing}", says="run.name=${nothing} cannot be used … 'nothing' not found"),
    case("train.steps=1,2", says="train.steps=1,2 names several values … 'train.steps=[1,2]' … phalanx sweep train"),
    case("-m", "train.steps=1,2", says="-m (multirun) … Type phalanx sweep … train.steps=1,2, with sweep.ranks"),
    case("--multirun", says="-m (multirun) … Type phalanx sweep"),
    case("hydra.mode=MULTIRUN", says="hydra.mode=MULTIRUN … Type phalanx sweep"),
    case("-m", says="-m (multirun) … Type phalanx sweep", ranks=2),
    case("hydra.run.dir=elsewhere", says="hydra.run.dir=elsewhere would have no effect"),
    case("hydra/job_logging=default", says="hydra/job_logging=default would have no effect"),
    case("--frobnicate", says="unrecognized arguments: --frobnicate … --help"),
    case("--cfg", "nothing", says="--cfg … nothing … --help"),
    case("--resolve", "--info", "all", says="--resolve … --help"),
    case("--cfg", "job", "train.step=5", says="Did you mean train.steps?"),
    case("--help", "model=mpl", says="Did you mean mlp?", ranks=2),
    case("--experimental-rerun=config.pickle", says="--experimental-rerun … pickle … --config-name=resolved"),
    case("--config-path=.", says="--config-path=. … Type --config-dir=."),
]

NAMES = [
    case("run.name=a/b", says="run.name='a/b' … slash … Type run.name=my-run"),
    case("run.name=..", says="run.name='..' … dot … Type run.name=my-run"),
    case("run.name=.hidden", says="run.name='.hidden' … dot"),
    case("run.name=", says="run.name='' … empty"),
    case("run.name='  '", says="run.name='  ' … empty"),
    case("run.name='a\nb'", says="run.name='a\\nb' … control characters"),
    case("run.name='a\tb'", says="run.name='a\\tb' … control characters"),
    case("run.name='\x1b[31m'", says="run.name='\\x1b[31m' … control characters"),
    case(f"run.name={'n' * 201}", says="nnn has more than 200 bytes … shorter"),
    case("run.root='s3://bucket/runs'", says="run.root=s3://bucket/runs is an address … Type a folder"),
    case("run.root='gs://b'", says="run.root=gs://b is an address"),
    case(
        "run.root='$SCRATCH/runs'",
        says="run.root=$SCRATCH/runs holds $SCRATCH, which no shell has replaced … Type run.root=",
    ),
    case("run.root='\\${HOME}/runs'", says="holds ${HOME}, which no shell has replaced"),
    case("run.root='~nobody-of-this-name/runs'", says="nobody knows the home folder that ~ means … Type"),
    case("run.root=", says="run.root='' is empty … Type run.root=runs"),
    case("run.root='a\nb'", says="run.root='a\\nb' … control characters"),
]


def file_in_the_way(folder: Path) -> None:
    (folder / "file").write_text("not a folder")


def no_run(folder: Path) -> None:
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "thesis.tex").write_text("dear reader")


def file_of_that_name(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / "taken").write_text("not a folder")


FOLDERS = [
    case(*MLP, "run.root=file", prepare=file_in_the_way, says="The run folder … file … Type run.root="),
    case(*MLP, "run.root=file", prepare=file_in_the_way, says="The run folder … Type run.root=", ranks=2),
    case(*MLP, "run.root=file/deeper", prepare=file_in_the_way, says="The run folder … file/deeper … Type run.root="),
    case(*MLP, "run.root=/proc/nothing", says="The run folder /proc/nothing … Type run.root="),
    case(*MLP, f"run.root={'n' * 300}", says="The run folder … too long … Type run.root="),
    case(*MLP, "run.name=taken", prepare=no_run, says="taken exists and is no run's folder … Type run.name="),
    case(
        *MLP, "run.name=taken", prepare=file_of_that_name, says="taken exists and is no run's folder … Type run.name="
    ),
]


def weights(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    """A safetensors file of zeros."""

    def prepare(folder: Path) -> None:
        header, place = {}, 0
        for name, shape in shapes.items():
            size = 4
            for n in shape:
                size *= n
            header[name.replace("__", ".")] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
            place += size
        head = json.dumps(header).encode()
        (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(place))

    return prepare


def no_tensorboard(folder: Path) -> None:
    (folder / "tensorboard.py").write_text("raise ImportError('none here')")


def garbage(folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(os.urandom(64))


STARTS = [
    case(*MLP, "train.init_from=nothing", says="train.init_from=nothing … is not there … Type"),
    case(*MLP, "train.init_from=nothing.safetensors", says="train.init_from=nothing.safetensors … is not there"),
    case(*MLP, "train.init_from=nothing.safetensors", says="nothing.safetensors", ranks=2),
    case(*MLP, "train.init_from=w.safetensors", prepare=garbage, says="w.safetensors cannot be read as safetensors"),
    case(
        *MLP,
        "train.init_from=w.safetensors",
        prepare=weights(layers__0__weight=(8, 700), layers__3__weight=(10, 8), extra=(1,)),
        says="layers.0.bias is missing … layers.3.bias is missing … extra is not in the model … "
        "layers.0.weight is (8, 700) there and (8, 784) in the model",
    ),
    case(*MLP, "train.extend_from=nothing", says="train.extend_from=nothing … Type"),
    case("train.init_from=a", "train.extend_from=b", says="train.init_from=a and train.extend_from=b"),
    case(
        *(*MLP, "tensorboard.enabled=true"),
        prepare=no_tensorboard,
        environ={"PYTHONPATH": "."},
        says="tensorboard.enabled=true … cannot be imported … pip install 'phalanx[tensorboard]'",
    ),
    case(
        *MLP,
        "wandb.mode=auto",
        environ={"WANDB_MODE": "sometimes"},
        says="WANDB_MODE … sometimes … online, offline, disabled",
    ),
]

CASES = [*KEYS, *TYPES, *LIMITS, *RANKS, *HARDWARE, *DATA, *TARGETS, *SYNTAX, *NAMES, *FOLDERS, *STARTS]
