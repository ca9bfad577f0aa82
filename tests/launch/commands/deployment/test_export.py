"""`phalanx export` prints its report, and nothing else, on standard output."""

import json
import os
from pathlib import Path

import pytest

from phalanx.deployment.forms import checked_postprocessing, checked_preprocessing
from phalanx.exit.codes import ConfigError
from tests.ranks import QUIET, Nursery, Starter
from tests.train.deploy.exporting import trained
from tests.warm_command import run_warm


def test_it_prints_its_report_and_refuses_what_no_format_has(
    nursery: Nursery, starter: Starter, tmp_path: Path
) -> None:
    run = trained(starter)

    def export(*words: str) -> tuple[int, str, str]:
        found = run_warm(nursery, ["export", str(run), *words], cwd=tmp_path, env={**os.environ, **QUIET})
        return found.returncode, found.stdout, " ".join(found.stderr.split())

    code, printed, errors = export("--to", "safetensors", "--out", "elsewhere")
    assert code == 0, errors
    report = json.loads(printed)
    assert report["export"] == str(tmp_path / "elsewhere")
    assert report.items() >= json.loads((tmp_path / "elsewhere" / "report.json").read_text()).items()
    assert not (run / "export").exists()
    for words, told in (
        (("--to", "hf"), "MLP has no save_pretrained and from_pretrained"),
        (("--to", "torch-export", "--dtype", "int8"), "--dtype int8 is for --to onnx"),
        (("--to", "safetensors", "optim.lr=1"), "optim.lr=1 would have no effect"),
    ):
        code, printed, errors = export(*words)
        assert (code, printed) == (2, "")
        assert told in errors
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ([1], r"preprocessing\(\) of Photos gave a list"),
        ({"kind": "picture"}, "has the kind 'picture'. Kinds are image, text"),
        ({"kind": "image", "channels": 3}, "is image and lacks size"),
        ({"kind": "index", "sizes": 3}, "has sizes. Did you mean size"),
        ({"y": {"kind": "tensor"}}, "tells of y, and the model's inputs are x, z"),
        ({"x": {"kind": "number", "mean": float("nan"), "std": 1}}, "holds what JSON does not"),
    ],
)
def test_a_data_set_that_says_its_inputs_wrongly_is_told(form: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        checked_preprocessing(form, ["x", "z"], "Photos")


def test_one_form_is_of_the_first_input_and_others_are_tensors() -> None:
    assert checked_preprocessing({"kind": "index"}, ["x", "z"], "Photos") == {
        "x": {"kind": "index"},
        "z": {"kind": "tensor"},
    }
    assert checked_postprocessing({"kind": "classes"}, ["a", "b"], "Mine") == {"kind": "classes", "output": "a"}
    with pytest.raises(ConfigError, match=r"postprocessing\(\) of Mine reads c, and the model's outputs are a, b"):
        checked_postprocessing({"kind": "value", "output": "c"}, ["a", "b"], "Mine")
