"""Weights that others saved are taken by name: whatever file they are in, with a message that says what to type."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.start_point.init_from import load_initial, start_point
from phalanx.train.start_point.match_names import Matched
from tests.phalanx.config.cases import MLP
from tests.ranks import Starter, quoted


class Net(nn.Module):
    """A body, and a head of `classes`."""

    def __init__(self, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, classes)


class Wrapped(nn.Module):
    def __init__(self, **inner: nn.Module) -> None:
        super().__init__()
        for name, module in inner.items():
            setattr(self, name, module)


def initialised(model: nn.Module, path: Path, *words: str) -> Matched:
    """Load `path` into `model` as a run does."""
    config = compose([f"train.init_from={quoted(str(path))}", *words]).config
    check(config, ranks=1)
    found = load_initial(model, start_point(config), config.train)
    assert found is not None
    return found


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(folder: Path, state: dict[str, torch.Tensor]) -> list[Path]:
    """`state` in every form that init_from takes."""
    for name, content in {
        "plain.pt": state,
        "nested.pth": {"epoch": 3, "state_dict": state, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        "model.bin": {"model": state},
        "deeper.ckpt": {"model_state_dict": {"model": state}},
        "ddp.pt": {f"module.{name}": value for name, value in state.items()},
        "compiled.pt": {f"_orig_mod.{name}": value for name, value in state.items()},
        "both.pt": {f"module._orig_mod.{name}": value for name, value in state.items()},
        "inner.pt": {name.replace("body.", "body._orig_mod."): value for name, value in state.items()},
    }.items():
        torch.save(content, folder / name)
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "file.safetensors")
    sharded = folder / "sharded"
    sharded.mkdir()
    names = {name: f"model-{i % 2 + 1}.safetensors" for i, name in enumerate(state)}
    for shard in set(names.values()):
        save_file({name: state[name] for name in state if names[name] == shard}, sharded / shard)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for single, name in (("hub", "model.safetensors"), ("other", "weights.safetensors")):
        (folder / single).mkdir()
        save_file(state, folder / single / name)
    torch.save(state, folder / "hub" / "pytorch_model.bin")
    rest = [sharded, sharded / "model.safetensors.index.json", folder / "hub", folder / "other"]
    return [*sorted(path for path in folder.iterdir() if path.is_file()), *rest]


def test_the_same_weights_are_taken_from_every_form_of_file(tmp_path: Path) -> None:
    given = Net(seed=1).state_dict()
    found = files(tmp_path, dict(given))
    assert len(found) == 14
    for path in found:
        model = Net()
        matched = initialised(model, path)
        assert equal(model.state_dict(), given), path
        assert (len(matched.loaded), matched.new, matched.left) == (len(given), [], []), path
        assert ("of torch.compile is dropped" in matched.told()) is (
            path.name in ("compiled.pt", "both.pt", "inner.pt")
        )
        assert ("of DistributedDataParallel is dropped" in matched.told()) is (path.name in ("ddp.pt", "both.pt"))


def test_a_head_of_another_size_is_one_word_which_the_message_says(tmp_path: Path) -> None:
    given = Net(classes=10, seed=1).state_dict()
    torch.save(given, tmp_path / "w.pt")
    with pytest.raises(ConfigError) as refused:
        initialised(Net(), tmp_path / "w.pt")
    assert "head.weight is (10, 5) there and (3, 5) in the model" in str(refused.value)
    assert "Type train.init_skip=head.* to leave these out" in str(refused.value)
    model = Net()
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    matched = initialised(model, tmp_path / "w.pt", "train.init_skip=head.*")
    for name, value in model.state_dict().items():
        assert torch.equal(value, drawn[name] if name.startswith("head.") else given[name]), name
    assert matched.new == matched.left == ["head.weight", "head.bias"]
    assert "2 drawn anew, 2 left over in the file; drawn anew: head.weight, head.bias" in matched.told()


def test_names_are_stripped_and_renamed(tmp_path: Path) -> None:
    given = Net(seed=1).state_dict()
    inner = Wrapped(model=Net(seed=1)).state_dict()
    torch.save(inner, tmp_path / "inner.pt")
    torch.save(given, tmp_path / "plain.pt")
    torch.save({name.replace("body.", "b."): value for name, value in inner.items()}, tmp_path / "renamed.pt")
    for file, *words in (
        ("inner.pt", "train.init_strip=model."),
        ("inner.pt", "train.init_strip=model"),
        ("inner.pt", r"train.init_rename=[['model\.(.*)','\1']]"),
        ("inner.pt", r"train.init_rename={model.:''}"),
        ("renamed.pt", "train.init_strip=model", "train.init_rename=[['^b[.]',body.]]"),
        ("renamed.pt", r"train.init_rename=[['^model.',''],['^b\.','body.']]"),
    ):
        model = Net()
        initialised(model, tmp_path / file, *words)
        assert equal(model.state_dict(), given), words
    wrapped: nn.Module
    for file, wrapped, says in (
        ("inner.pt", Net(), "Type train.init_strip=model."),
        ("plain.pt", Wrapped(net=Net()), """Type 'train.init_rename=[["^","net."]]'"""),
        ("inner.pt", Net(classes=4), "Type train.init_strip=model. train.init_skip=head.* to leave"),
        ("plain.pt", Wrapped(x=nn.Linear(7, 7)), "Nothing of it fits"),
        ("plain.pt", Wrapped(body=Net().body, top=nn.Linear(5, 3)), "Type 'train.init_skip=[top.*,head.*]'"),
    ):
        with pytest.raises(ConfigError) as refused:
            initialised(wrapped, tmp_path / file)
        assert says in str(refused.value), file
    wrapped = Wrapped(net=Net())
    initialised(wrapped, tmp_path / "plain.pt", """train.init_rename=[["^","net."]]""")
    assert equal(wrapped.state_dict(), Wrapped(net=Net(seed=1)).state_dict())


def test_a_tensor_that_the_model_shares_is_taken_where_the_file_holds_it_once(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = Wrapped(embed=nn.Embedding(6, 4), head=nn.Linear(4, 6, bias=False))
        model.head.weight = model.embed.weight  # type: ignore[union-attr]
        return model

    save_file({"embed.weight": tied(1).state_dict()["embed.weight"]}, tmp_path / "w.safetensors")
    model = tied(0)
    matched = initialised(model, tmp_path / "w.safetensors")
    assert equal(model.state_dict(), tied(1).state_dict())
    assert matched.new == []


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("BOOM",)


def test_no_file_is_unpickled_and_what_holds_no_weights_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = Net().state_dict()
    for name, content in (("model.pt", Net()), ("bomb.pt", {"state_dict": state, "callbacks": Bomb()})):
        torch.save(content, tmp_path / name)
    torch.save({"net": state, "epoch": 3}, tmp_path / "net.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "text.bin").write_text("<html>404</html>")
    (tmp_path / "short.pt").write_bytes((tmp_path / "net.pt").read_bytes()[:700])
    (tmp_path / "empty").mkdir()
    (tmp_path / "out.index.json").write_text(json.dumps({"weight_map": {"a": "../net.pt"}}))
    (tmp_path / "lost.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    for name, says in {
        "model.pt": "only a pickle could bring back",
        "bomb.pt": "If you trust it",
        "text.bin": "is not loaded",
        "short.pt": "is not loaded",
        "net.pt": "holds no state_dict, also not under state_dict, model_state_dict, model: it holds net, epoch",
        "tensor.pt": "holds a Tensor",
        "empty": "is no run's folder and holds no weights",
        "out.index.json": "does not lie beside it",
        "lost.index.json": "names b.safetensors, which is not there",
    }.items():
        with pytest.raises(ConfigError) as refused:
            initialised(Net(), tmp_path / name)
        assert says in str(refused.value), name
    assert "BOOM" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train.init_skip=tail.*"], "matches the whole of no name … head.weight"),
        (["train.init_skip=head"], "Type train.init_skip=head.*"),
        (["train.init_skip='['"], "is no regular expression"),
        (["train.init_strip=x."], "begins no name … body.0.weight"),
        (["train.init_rename=[[x,y]]"], "matches no name"),
        (["train.init_rename=[[x]]"], "is no pair"),
        (["train.init_rename=[['(','']]"], "is none"),
        ([r"train.init_rename=[['head','\2']]"], "is none: invalid group reference 2"),
        (["train.init_rename={head:a,weight:b}"], "both 'head' and 'weight' match head.weight … list of pairs"),
        (["train.init_rename=[['weight|bias',x]]"], "of both"),
    ],
)
def test_a_pattern_that_does_nothing_or_too_much_is_refused(words: list[str], says: str, tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError) as refused:
        initialised(Net(), tmp_path / "w.pt", *words)
    for part in says.split(" … "):
        assert part in str(refused.value)


def test_patterns_without_a_file_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.init_skip=a says how names of train\.init_from are read"):
        check(compose(["train.init_skip=a"]).config, ranks=1)


def test_a_run_lists_what_it_took_and_is_another_with_another_pattern(starter: Starter) -> None:
    """The file is hashed; a restart takes it again, and lists nothing."""
    torch.manual_seed(5)
    given = {"layers.0.weight": torch.randn(8, 784), "layers.0.bias": torch.randn(8), "fc.weight": torch.randn(3, 8)}
    torch.save({f"module.{name}": value for name, value in given.items()}, starter.folder / "w.pt")
    begins = (*MLP, f"train.init_from={quoted(str(starter.folder / 'w.pt'))}", "optim=sgd", "optim.lr=0")
    ended = starter.run(2, *begins, "run.name=r")
    assert ended.codes == [2, 2]
    assert ended.output.count("Type 'train.init_skip=[layers.3.*,fc.*]' to leave") == 1
    skip = "train.init_skip=[layers.3.*,fc.*]"
    results = starter.train(2, *begins, skip, name="r")
    assert all(torch.equal(results.weights()[name], given[name]) for name in ("layers.0.weight", "layers.0.bias"))
    (start,) = results.events("start")
    assert start["init_names"]["loaded"] == ["layers.0.weight", "layers.0.bias"]
    assert start["init_names"]["new"] == ["layers.3.weight", "layers.3.bias"]
    assert start["init_names"]["left"] == ["fc.weight"]
    assert "2 loaded, 2 drawn anew, 1 left over" in start["init_from"]
    drawn = starter.train(1, *MLP, "optim=sgd", "optim.lr=0", name="drawn").weights()
    assert torch.equal(drawn["layers.3.weight"], results.weights()["layers.3.weight"])
    other = starter.run(1, *begins, "train.init_skip=[layers.3.*,'fc[.].*']", "run.name=r")
    assert other.codes == [2]
    assert "train.init_skip" in other.output
