"""What defines a run names it, however it is spelt; what does not, leaves its name alone."""

import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from phalanx.compose import module_source
from phalanx.compose.alias import defaults
from phalanx.compose.canonical import canonical, public, text
from phalanx.compose.compose import compose
from phalanx.compose.digest import defining, differences, digest
from phalanx.compose.former_digests import former_digests
from phalanx.compose.resolved import to_yaml
from phalanx.config.schema import NOTHING, Config, Kind, Leaf, schema
from phalanx.exit.codes import ConfigError
from tests.ranks import ROOT, Starter

NAMES = Path(__file__).with_name("names.txt")
RUN = ("model=mlp", "model.hidden=[8]", "train.steps=2", "eval.every=null", "schedule=constant")


def name(*words: str) -> str:
    return str(compose(words).config.run.name)


def test_commands_keep_their_names_and_digests() -> None:
    """A line that has to change here means that nobody's run is found by the command that began it."""
    lines = [line.split(maxsplit=2) for line in NAMES.read_text().splitlines()]
    assert len(lines) == 20
    configs = [compose(shlex.split(words)).config for _, _, words in lines]
    assert [[config.run.name, digest(config)] for config in configs] == [known for *known, _ in lines]
    assert len({known for known, *_ in lines}) == 20


def test_one_value_in_several_spellings_is_one_run() -> None:
    for spellings in (
        ("optim.lr=1", "optim.lr=1.0", "optim.lr=1e0", "++optim.lr=10e-1"),
        ("train.epochs=10", "train.epochs=10.0", "train.epochs=1e1", ""),
        ("model=mlp model.hidden=[8,4]", "model=mlp model.hidden=[8.0,4]"),
        ("+model.extra={a:1,b:{c:2}}", "+model.extra={b:{c:2.0},a:1}"),
        ("", "optim._target_=torch.optim.adam.Adam", "optim._target_=torch.optim.Adam"),
        (
            "model=mlp",
            "model=mlp model._target_=phalanx.models.MLP",
            "model=mlp model._target_=phalanx.train.models.mlp.MLP",
            "model=mlp model._target_=train.models.mlp.MLP",
        ),
        ("model=resnet18", "model=resnet18 model._target_=torchvision.models.resnet.resnet18"),
    ):
        assert len({name(*words.split()) for words in spellings}) == 1, spellings


def test_values_that_only_look_alike_are_different_runs() -> None:
    values = ["1", "'1'", "'1.0'", "true", "'true'", "[1]", "{a:1}", "null", "''", "1.5", "-1"]
    extras = "{" + ",".join(f"k{i}:{value}" for i, value in enumerate(values)) + "}"
    found = compose([f"+model.extra={extras}"]).config.model["extra"].values()
    assert len({text(canonical(value)) for value in found}) == len(values)
    assert text(canonical({1: "a"})) != text(canonical({"1": "a"}))


def test_a_class_keeps_its_name_where_it_moves_within_its_package() -> None:
    moved = {
        "torch.nn.modules.linear.Linear": "torch.nn.Linear",
        "torch.utils.data.dataset.ConcatDataset": "torch.utils.data.ConcatDataset",
        "torchvision.models.segmentation.fcn.fcn_resnet50": "torchvision.models.segmentation.fcn_resnet50",
        "torchvision.datasets.mnist.MNIST": "torchvision.datasets.MNIST",
        "phalanx.train.models.convnet.ConvNet": "phalanx.train.models.nets.ConvNet",
    }
    for old, new in moved.items():
        assert public(old) == public(new) != public("torch.optim.lr_scheduler.StepLR")
    for kept in ("torch.optim.lr_scheduler.StepLR", "torchvision.models.segmentation.fcn_resnet50", "mine.Net"):
        assert public(kept) == kept


def test_a_package_of_the_users_that_is_called_train_is_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train" / "models").mkdir(parents=True)
    for package in ("train", "train/models"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "train" / "models" / "mlp.py").write_text("class MLP: ...\nclass ConvNet: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    for theirs in ("train.models.mlp.MLP", "train.models.mlp.ConvNet"):
        assert public(theirs) == theirs
    assert public("train.data.digits.Digits") == "phalanx.Digits"
    assert (
        public("phalanx.data.Digits.small")
        == public("phalanx.train.data.digits.Digits.small")
        == "phalanx.Digits.small"
    )
    assert public("torch.nn.modules.sparse.Embedding.from_pretrained") == "torch.nn.Embedding.from_pretrained"
    assert public("torch.optim.Adam.of") != public("torch.optim.SGD.of")


PACKAGE = {
    "own/__init__.py": "raise RuntimeError('a name imports nothing')\nfrom .models import *\nimport own.data as parts\n"
    "import own.models.net as n\nBig = n.Net\nfrom torch.nn import Linear\n",
    "own/models/__init__.py": "from .net import Net, Other, make\nfrom . import net\n__all__ = ['Net', 'net']\n",
    "own/models/net.py": "class Net: ...\nclass Other: ...\ntry:\n    class Fast: ...\nexcept: Fast = Net\n"
    "def make(): ...\n",
    "own/data/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .blocks import Rows\n"
    "def __getattr__(name):\n    from .blocks import Columns\n    return Columns\n",
    "own/data/blocks.py": "class Rows: ...\nclass Columns: ...\nmade = type('made', (), {})\n",
    "own/table.py": "import importlib\ndef __getattr__(name): return getattr(importlib.import_module('own.data'), name)\n",
    "own/broken.py": "class (:\n",
}
ALIASES = {
    "own.Net": ("own.models.Net", "own.models.net.Net", "own.Big"),
    "own.models.Other": ("own.models.net.Other",),
    "own.models.make": ("own.models.net.make",),
    "own.Net.small": ("own.models.net.Net.small", "own.Big.small"),
    "own.models.Other.inner.small": ("own.models.net.Other.inner.small",),
    "own.models.net.Fast": (),
    "own.data.Rows": ("own.data.blocks.Rows",),
    "own.data.Columns": ("own.data.blocks.Columns",),
    "own.data.blocks.made": (),
    "own.table.Rows": (),  # nobody can tell without asking it
    "own.broken.Net": (),
    "own.nothing.Net": (),
    "nobodys.Net": (),
    "torch.nn.Linear": ("own.Linear", "torch.nn.modules.linear.Linear"),
}


def own_package(folder: Path) -> None:
    for name, text_of in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text_of)


def test_one_object_of_a_users_package_has_one_name_whichever_alias_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert {typed: public(typed) for known, others in ALIASES.items() for typed in (known, *others)} == {
        typed: known for known, others in ALIASES.items() for typed in (known, *others)
    }
    runs = ["own.Net", "own.models.net.Net", "own.models.net.Other"]
    assert len({name("model=mlp", f"model._target_={target}") for target in runs}) == 2
    (tmp_path / "own/models/net.py").write_text("class Other: ...\nNet = Other\n")
    assert public("own.Net") == "own.models.Other", "a file is read anew once it is another one"


def test_what_python_warns_of_in_a_users_file_is_told_by_its_import_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "warned.py").write_text("DIGIT = '\\d'\nclass Net: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert public("warned.Net") == "warned.Net"
    assert told == []


def test_what_hydra_does_anyway_may_be_written_down() -> None:
    node = {"_target_": "torch.nn.GELU"}
    assert canonical({**node, "_partial_": False, "_recursive_": True, "_args_": []}) == canonical(node)
    for more in ({"_partial_": True}, {"_recursive_": False}, {"_args_": [False]}, {"_convert_": "none"}):
        assert text(canonical({**node, **more})) != text(canonical(node))


def test_a_package_of_thousands_of_files_is_searched_and_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers, which hands on by * what the files of 500 folders define."""
    (tmp_path / "many").mkdir()
    files = {f"m{i}": f"__all__ = ['Net{i}']\nclass Net{i}: ...\n" for i in range(300)}
    for module, source in files.items():
        (tmp_path / "many" / f"{module}.py").write_text(source)
    stars = "".join(f"    from .{module} import *\n" for module in files)
    (tmp_path / "many/__init__.py").write_text(f"TYPE_CHECKING = False\nif TYPE_CHECKING:\n{stars}")
    monkeypatch.syspath_prepend(tmp_path)
    before = module_source._parsed.cache_info().misses
    assert public("many.m7.Net7.of") == public("many.Net7.of") == "many.Net7.of"
    assert module_source._parsed.cache_info().misses < before + 20, "of 300"


@pytest.mark.timeout(30)
def test_modules_that_take_all_names_of_one_another_are_each_read_for_a_name_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 2**40 ways through these."""
    (tmp_path / "star").mkdir()
    for layer in range(40):
        below = "".join(f"from .m{layer + 1}{side} import *\n" for side in "ab") if layer < 39 else "class Last: ...\n"
        for side in "ab":
            (tmp_path / f"star/m{layer}{side}.py").write_text(below)
    (tmp_path / "star/__init__.py").write_text("from .m0a import *\nfrom .m0b import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert public("star.Nothing") == "star.Nothing"
    assert public("star.m39b.Last") == "star.Last"


# What a launcher knows, which has no torch.
LOOK = """
import sys
sys.modules["torch"] = None
from phalanx.compose.compose import compose
print(compose(sys.argv[1:]).config.run.name)
"""


def name_by(path: Sequence[Path], *words: str, cwd: Path) -> str:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", LOOK, *words]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=True).stdout.strip()


def test_a_launcher_without_torch_gives_a_run_the_name_that_its_ranks_give_it(tmp_path: Path) -> None:
    own_package(tmp_path)
    words = ["model=mlp", "model._target_=own.models.net.Net"]
    told = name_by([tmp_path, ROOT], *words, cwd=tmp_path)
    rank = [sys.executable, str(ROOT / "train/main.py"), *words]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    began = subprocess.run(rank, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert "a name imports nothing" in began.stderr, "the rank builds it"
    assert began.stdout.split(" on ")[0] == told


def test_a_key_that_our_model_got_later_with_a_default_of_its_own_changes_no_name(tmp_path: Path) -> None:
    for part in ("conf", "launch", "phalanx", "slurm", "train"):
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True)
    source, group = tmp_path / "train/models/mlp.py", tmp_path / "conf/model/mlp.yaml"
    source.write_text(source.read_text().replace("dropout: float)", "dropout: float, norm: str = 'none')"))
    group.write_text(group.read_text() + "norm: none # none | layer\n")
    words = ["model=mlp", "seed=3"]
    assert name_by([tmp_path], *words, cwd=tmp_path) == name(*words)
    assert name_by([tmp_path], *words, "model.norm=layer", cwd=tmp_path) != name(*words)


def test_defaults_are_told_by_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classes.py").write_text(
        "class Base:\n    def __init__(self, width=4, *, tied: bool = False, made=object()): ...\n"
        "class Net(Base): ...\n"
        "class Deep(Base):\n    def __init__(self, inputs, sizes=(1, 2)): ...\n"
        "class Floor:\n    floor: float = 0.0\n"
        "class Cosine(Floor):\n    final: float\n    rise: float = -1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    known = {"Net": {"width": 4, "tied": False}, "Deep": {"sizes": (1, 2)}, "Cosine": {"floor": 0.0, "rise": -1.0}}
    assert {each: defaults(f"classes.{each}") for each in known} == known
    assert defaults("classes.Nobody") == defaults("nobodys.Net") == {}


def test_a_default_of_other_peoples_changes_no_name() -> None:
    """It may be another one in their next version."""
    for target, argument in (("torch.nn.Dropout", {"p": 0.5}), ("json.JSONEncoder", {"sort_keys": False})):
        assert canonical({"_target_": target, **argument}).keys() == {"_target_", *argument}


def test_the_groups_of_other_peoples_classes_keep_their_keys() -> None:
    """One more changes the name of each run of that group. It can be typed: +optim.amsgrad=true.

    Keys of ours are left out of the digest where they mean nothing: `own` in the schema.
    """
    keys = {
        "optim": {
            "adam": "betas decay_1d eps fused lr weight_decay",
            "adamw": "betas decay_1d eps fused lr weight_decay",
            "sgd": "decay_1d fused lr momentum nesterov weight_decay",
        },
        "model": dict.fromkeys(("alexnet", "resnet18", "resnet50", "vgg16"), "num_classes"),
    }
    for group, options in keys.items():
        for option, known in options.items():
            found = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text())
            own = schema()[group].own
            assert {key: found[key] for key in own} == own
            assert " ".join(sorted(found.keys() - {"_target_"} - own.keys())) == known, option


def test_a_value_under_a_key_with_a_secrets_word_names_the_run() -> None:
    found = compose([]).config
    for key in ("label_key", "token", "auth_mode", "pass", "cookie", "key", "secret", "password"):
        values = [{**found.data.train, key: value} for value in ("digit", "parity", "hunter22", "hunter23")]
        runs = [replace(found, data=replace(found.data, train=value)) for value in values]
        assert len({digest(run) for run in runs}) == 4, key


def test_differences_show_no_secret() -> None:
    before, now = (
        {"data": {"password": word, "label_key": label}} for word, label in (("hunter22", "a"), ("swordfish", "b"))
    )
    assert differences(before, now) == ["data.label_key: a -> b", "data.password: [redacted] -> [redacted]"]
    stored = {"url": "db://me:[redacted]@host"}
    assert differences(stored, {"url": "db://me:x@host"}) == []
    assert differences(stored, {"url": "db://me:x@other"}) != []


def test_a_key_that_came_later_is_left_out_while_it_is_neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compose([]).config
    later = Leaf(Kind.defining, 1, 9, False, 2.0, NOTHING)
    monkeypatch.setattr("phalanx.config.schema.schema", lambda: {"parallel.powersgd_rank": later})
    assert defining(found) == {}
    other = replace(found, parallel=replace(found.parallel, powersgd_rank=3))
    assert defining(other) == {"parallel": {"powersgd_rank": 3}}


def begun_before(root: Path, config: Config, stored: str, which: int = 0) -> Path:
    """A folder as an earlier version named it."""
    folder = root / f"digits-{former_digests(config)[which][:8]}"
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text(stored)
    return folder


@pytest.mark.parametrize(("which", "known"), [(0, "digits-645e6115"), (1, "digits-78044be1")])
def test_a_run_that_an_earlier_version_began_is_found(tmp_path: Path, which: int, known: str) -> None:
    asked = compose([f"run.root={tmp_path}"])
    folder = begun_before(tmp_path, asked.config, to_yaml(asked.plain), which)
    assert folder.name == known, "as those versions named it"
    assert name(f"run.root={tmp_path}") == folder.name
    assert name(f"run.root={tmp_path}", "seed=1") not in (folder.name, asked.config.run.name)
    (tmp_path / str(asked.config.run.name)).mkdir()
    assert name(f"run.root={tmp_path}") == asked.config.run.name


def test_a_run_whose_values_an_earlier_version_hid_is_named_and_not_mixed(tmp_path: Path) -> None:
    words = [f"run.root={tmp_path}", "+data.train.label_key=parity"]
    asked = compose(words)
    folder = begun_before(tmp_path, asked.config, "data: {train: {label_key: '[redacted]'}}")
    with pytest.raises(
        ConfigError, match=f"Type run.name={folder.name} to continue it, or run.name={asked.config.run.name}"
    ):
        compose(words)


def test_a_file_that_hides_a_value_is_not_replayed(tmp_path: Path) -> None:
    plain = dict(compose(["sweep.storage=db://me:x@host", "+model.password=hunter22"]).plain)
    plain["model"] = {**plain["model"], "password": "[redacted]"}
    plain["sweep"] = {**plain["sweep"], "storage": "db://me:[redacted]@host"}
    (tmp_path / "resolved.yaml").write_text(to_yaml(plain))
    replay = [f"--config-dir={tmp_path}", "--config-name=resolved"]
    with pytest.raises(ConfigError, match=r"model.password is \[redacted\].* Type model.password=…"):
        compose(replay)
    assert digest(compose([*replay, "model.password=hunter22"]).config) == digest(
        compose(["+model.password=hunter22"]).config
    )


def test_a_file_of_another_version_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    plain = yaml.safe_load(to_yaml(compose([]).plain))
    for gone in (("sweep",), ("cluster", "notice_s"), ("train", "max_skips"), ("parallel", "static_graph")):
        section = plain
        for part in gone[:-1]:
            section = section[part]
        del section[gone[-1]]
    plain |= {"colour": "blue"}
    plain["train"]["warp"] = 9
    plain["checkpoint"]["asynchronous"] = False  # a key of versions before, which only refused
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(plain))
    replay = [f"--config-dir={tmp_path}", "--config-name=resolved"]
    found = compose([*replay, "cluster.notice_s=60"])
    unknown = ("checkpoint.asynchronous", "colour", "train.warp")
    assert found.notes == [f"{key} is no key of this version and is left out" for key in unknown]
    assert (found.config.train.max_skips, found.config.cluster.notice_s) == (10, 60)
    assert digest(found.config) == digest(compose([]).config)
    with pytest.raises(ConfigError, match=r"train\.wrap"):
        compose([*replay, "+train.wrap=1"])
    del plain["seed"]
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigError, match="seed has no value and must have one"):
        compose(replay)


def test_a_stored_config_keeps_words_and_hides_secrets(starter: Starter) -> None:
    """The words replay it, and a message about them shows them."""
    words = ["+wandb.tags=[digit,parity]", "sweep.storage=db://me:hunter22@host"]
    results = starter.train(1, *RUN, *words, name="r", environ={"DB_PASSWORD": "hunter22"})
    stored = yaml.safe_load((results.folder / "resolved.yaml").read_text())
    assert stored["wandb"]["tags"] == ["digit", "parity"]
    assert stored["sweep"]["storage"] == "db://me:[redacted]@host"
    ended = starter.run(1, f"--config-dir={results.folder}", "--config-name=resolved")
    assert ended.codes == [0], ended.output
    assert "finished already" in ended.output


def test_where_an_evaluation_decides_how_training_goes_on_all_of_eval_is_in_the_name() -> None:
    plain, plateau = (), ("+schedule.metric=loss",)
    groups = ("optim.groups=[{match:head,schedule:{_target_:mine.Plateau,metric:f1}}]",)
    for words, defines in ((plain, False), (plateau, True), (groups, True)):
        for other in ("eval.every=7", "eval.batch=64"):
            assert (name(*words) != name(*words, other)) is defines, (words, other)
    assert name(*plateau, "eval.every=7") == name(*plateau, "eval.every=7", "checkpoint.every=3", "log.every=2")


def test_groups_and_layer_decay_are_in_the_name_once_they_are_set() -> None:
    known = {"", "optim.groups=[{match:bias,lr:0.1}]", "optim.groups=[{match:bias,lr:0.2}]", "optim.layer_decay=0.75"}
    assert len({name(*filter(None, [words])) for words in known}) == 4
    assert name("optim.layer_decay=null") == name("optim.groups=[]") == name()
