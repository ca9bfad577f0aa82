"""A restart notices code or data that changed, and nothing else."""

import random
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import code_hash
from phalanx.run_folder.names import DRAWS
from phalanx.train.loading import data_hash
from tests.ranks import ROOT

Pair = namedtuple("Pair", "image label")


class Listed:
    """A dataset of given samples that remembers which were asked for."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.samples[index]


def sample_hash(sample: object) -> str:
    return data_hash.hash_data(Listed([sample]))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a trainer, and a user's package, module and namespace package on the path."""
    files = {
        "repo/train/__init__.py": "",
        "repo/train/step.py": "x = 1",
        "repo/train/data/order.py": "y = 1",
        "repo/train/notes.txt": "no code",
        "repo/train/__pycache__/step.py": "stale",
        "user/phx_pack/__init__.py": "raise SystemExit('found, not imported')",
        "user/phx_pack/deep/net.py": "z = 1",
        "user/phx_pack/.hidden/old.py": "no",
        "user/phx_single.py": "raise SystemExit",
        "user/phx_space/part/a.py": "a = 1",
        "more/phx_space/part/b.py": "b = 1",
        "elsewhere/out.py": "secret = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "user"), str(tmp_path / "more"), *sys.path])
    return tmp_path / "repo"


def test_the_trainer_and_the_users_packages_are_hashed_without_being_imported(root: Path) -> None:
    names = ["phx_pack.deep.net.Net", "phx_single", "phx_space", "torch.nn", "torchvision", "collections", "phalanx"]
    hashes = code_hash.hash_code(names, root)
    assert list(hashes) == [
        "phalanx/train/__init__.py",
        "phalanx/train/data/order.py",
        "phalanx/train/step.py",
        "phx_pack/__init__.py",
        "phx_pack/deep/net.py",
        "phx_single.py",
        "phx_space/part/a.py",
        "phx_space/part/b.py",
    ]
    assert hashes["phalanx/train/__init__.py"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", (
        "sha256"
    )
    assert not {"phx_pack", "phx_single", "phx_space"} & sys.modules.keys()


def test_a_checkout_at_another_place_has_the_same_code(root: Path, tmp_path: Path) -> None:
    before = code_hash.hash_code([], root)
    assert before == code_hash.hash_code([], root.rename(tmp_path / "moved"))


def test_edits_additions_and_removals_are_named(root: Path) -> None:
    before = code_hash.hash_code(["phx_single"], root)
    assert code_hash.changed_files(before, code_hash.hash_code(["phx_single"], root)) == []
    (root / "train/step.py").write_text("x = 2")
    (root / "train/data/order.py").unlink()
    (root / "train/loop.py").write_text("")
    lines = code_hash.changed_files(before, code_hash.hash_code(["phx_single"], root))
    assert lines == [
        "gone: phalanx/train/data/order.py",
        "new: phalanx/train/loop.py",
        "edited: phalanx/train/step.py",
    ]


@pytest.fixture
def namesakes(root: Path) -> Path:
    """The folder of the user's packages, two of which are called as folders of ours and hold files of the same names."""
    user = root.parent / "user"
    for name in ("repo/common/files.py", "user/train/step.py", "user/train/mine.py", "user/common/files.py"):
        (root.parent / name).parent.mkdir(exist_ok=True)
        (root.parent / name).write_text(f"name = {name!r}")
    (user / "train/__init__.py").touch()
    (user / "common/__init__.py").touch()
    return user


def test_a_users_package_with_the_name_of_a_folder_of_ours_is_the_users(root: Path, namesakes: Path) -> None:
    used = ["train.step.Net", "common.files"]
    before = code_hash.hash_code(used, root)
    (namesakes / "train/step.py").write_text("edited")
    (namesakes / "common/files.py").write_text("edited")
    for number in range(9):
        (root / f"train/new_{number}.py").touch()
    assert code_hash.changed_files(before, code_hash.hash_code(used, root)) == [
        "edited: common/files.py",
        "edited: train/step.py",
        "Phalanx itself is another version (files: 9 new)",
    ]


def of_before(hashes: Mapping[str, str]) -> dict[str, str]:
    """As older versions recorded them: files of ours without `phalanx/`, and of the user's those alone that had
    another name than any of ours."""
    ours = {name.removeprefix("phalanx/"): value for name, value in hashes.items() if name.startswith("phalanx/")}
    return {**{name: value for name, value in hashes.items() if not name.startswith("phalanx/")}, **ours}


def test_what_older_versions_recorded_is_compared_file_by_file(root: Path, namesakes: Path) -> None:
    used = ["train.step", "common.files", "phx_single"]
    before = of_before(code_hash.hash_code(used, root))
    assert before["train/step.py"] != code_hash.hash_code(used, root)["train/step.py"], "ours, by the user's name"
    assert code_hash.changed_files(before, code_hash.hash_code(used, root)) == []
    (root / "train/step.py").write_text("edited")
    (namesakes / "train/mine.py").write_text("edited")
    (root / "train/data/order.py").unlink()
    assert code_hash.changed_files(before, code_hash.hash_code(used, root)) == [
        "gone: phalanx/train/data/order.py",
        "edited: phalanx/train/step.py",
        "edited: train/mine.py",
    ]


def test_links_that_lead_out_of_a_package_are_not_followed(root: Path, tmp_path: Path) -> None:
    before = code_hash.hash_code([], root)
    (root / "train/out.py").symlink_to(tmp_path / "elsewhere/out.py")
    (root / "train/outside").symlink_to(tmp_path / "elsewhere")
    (root / "train/loop").symlink_to(root / "train")
    (root / "train/broken.py").symlink_to("nowhere.py")
    assert code_hash.hash_code([], root) == before
    (root / "train/alias.py").symlink_to("step.py")
    assert code_hash.hash_code([], root)["phalanx/train/alias.py"] == before["phalanx/train/step.py"]


def test_a_package_that_is_itself_a_link_is_hashed(root: Path, tmp_path: Path) -> None:
    (root / "train").rename(tmp_path / "real")
    (root / "train").symlink_to(tmp_path / "real")
    assert "phalanx/train/step.py" in code_hash.hash_code([], root)


def test_a_package_that_is_not_there_is_the_users_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="'phx_absent' is found: install it"):
        code_hash.hash_code(["phx_absent.models.Net"], root)


def test_a_datasets_own_fingerprint_counts_and_no_sample_is_drawn() -> None:
    class Own(Listed):
        def fingerprint(self) -> str:
            return "version 7"

    dataset = Own([1])
    assert data_hash.hash_data(dataset) == "version 7"
    assert dataset.asked == []


def test_a_fingerprint_that_is_no_string_and_a_dataset_without_length_are_the_users_errors() -> None:
    class Wrong(Listed):
        def fingerprint(self) -> int:
            return 7

    with pytest.raises(ConfigError, match=r"Wrong\.fingerprint\(\) returned int"):
        data_hash.hash_data(Wrong([1]))
    with pytest.raises(ConfigError, match="generator cannot be copied"):
        data_hash.hash_data(number for number in range(3))


def test_data_that_draw_by_themselves_are_noticed() -> None:
    class Drawing(Listed):
        generator = np.random.default_rng(0)

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) + self.generator.random()

    class Own(Drawing):
        def fingerprint(self) -> str:
            return "version 7"

    assert data_hash.hash_data_twice(Drawing([1, 2])) == DRAWS
    assert data_hash.hash_data_twice(Own([1, 2])) == "version 7"
    assert data_hash.hash_data_twice(Augmented()) == data_hash.hash_data(Augmented())


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, 12345])
def test_samples_are_spread_from_the_first_to_the_last(length: int) -> None:
    dataset = Listed(list(range(length)))
    data_hash.hash_data(dataset)
    assert len(dataset.asked) == min(length, 16)
    assert dataset.asked == sorted(set(dataset.asked))
    assert {0, length - 1} <= set(dataset.asked) or length == 0
    steps = np.diff(dataset.asked)
    assert length < 2 or max(steps) - min(steps) <= 1


def test_the_length_counts() -> None:
    assert data_hash.hash_data(Listed([1] * 100)) != data_hash.hash_data(Listed([1] * 101))


def image(level: int) -> Any:
    return pytest.importorskip("PIL.Image").new("L", (4, 4), level)


# Each line holds samples that all differ.
SAMPLES: Mapping[str, Callable[[], list[Any]]] = {
    "tensor": lambda: [
        torch.arange(4),
        torch.arange(4).reshape(2, 2),
        torch.arange(4).int(),
        torch.arange(4).numpy(),
        torch.tensor([0, 1, 2, 4]),
        torch.arange(4).bfloat16(),
        torch.zeros(4),
        torch.zeros(4, dtype=torch.int32),
    ],
    "scalar tensor": lambda: [torch.tensor(1.5), torch.tensor(2.5), torch.tensor([1.5]), torch.tensor(True), 1.5],
    "complex tensor": lambda: [torch.tensor([1 + 2j]), torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 3j]).conj()],
    "negated tensor": lambda: [torch.tensor([1 + number * 1j]).conj().imag for number in (1, 2)],
    "one of a stride": lambda: [torch.arange(2)[::2], torch.arange(1, 3)[::2]],
    "strided": lambda: [torch.arange(6).reshape(2, 3).T, torch.arange(6).reshape(3, 2), torch.arange(6)[::2]],
    "array": lambda: [
        np.arange(4),
        np.arange(4.0),
        np.arange(4).reshape(2, 2),
        np.zeros(4, "f4"),
        np.zeros(4, "i4"),
        [0, 1, 2, 3],
    ],
    "object array": lambda: [np.array([[float(text), None]], object) for text in ("1.5", "2.5")],
    "number": lambda: [1, 1.0, True, "1", b"1", 2, None, 1j, np.float32(1), np.float64(1), float("nan")],
    "text": lambda: ["ab", "a", b"ab", ["a", "b"], ["ab"], "\ud800"],
    "nesting": lambda: [[[1], 2], [1, [2]], [1, 2], [[1, 2]], [], [[]], {}, [{}]],
    "mapping": lambda: [{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1}, [("a", 1), ("b", 2)], {1: 2}],
    "pair": lambda: [Pair(torch.ones(2), 1), Pair(torch.ones(2), 2), Pair(torch.zeros(2), 1)],
    "image": lambda: [image(7), image(8)],
    "object": lambda: [object(), Listed([]), object],
    "sparse": lambda: [torch.eye(2).to_sparse(), torch.eye(2)],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_equal_samples_hash_equally_and_others_do_not(kind: str) -> None:
    samples, again = SAMPLES[kind](), SAMPLES[kind]()
    hashes = [sample_hash(sample) for sample in samples]
    assert hashes == [sample_hash(sample) for sample in again]
    assert len(set(hashes)) == len(hashes)


def test_order_of_insertion_and_layout_in_memory_do_not_count() -> None:
    assert sample_hash({"a": 1, "b": 2}) == sample_hash({"b": 2, "a": 1})
    assert sample_hash(torch.arange(6).reshape(2, 3).T) == sample_hash(torch.tensor([[0, 3], [1, 4], [2, 5]]))
    assert sample_hash(np.asfortranarray(np.ones((2, 3)))) == sample_hash(np.ones((2, 3)))
    assert sample_hash(torch.ones(2, requires_grad=True)) == sample_hash(torch.ones(2))


class Augmented:
    """Random in every one of the three ways."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return random.random(), np.random.rand(2), torch.rand(2), index


def test_a_data_set_that_fetches_batches_alone_has_a_fingerprint() -> None:
    class Batched(Dataset[Any]):
        def __init__(self, level: float) -> None:
            self.values = torch.full((40,), level)

        def __len__(self) -> int:
            return len(self.values)

        def __getitems__(self, indices: Any) -> Any:
            return self.values[indices], torch.as_tensor(indices)

    assert data_hash.hash_data(Batched(1.0)) == data_hash.hash_data(Batched(1.0)) != data_hash.hash_data(Batched(2.0))


def test_random_augmentation_does_not_change_the_fingerprint() -> None:
    random.seed(1)
    first = data_hash.hash_data(Augmented())
    random.seed(2)
    np.random.seed(2)
    torch.manual_seed(2)
    assert data_hash.hash_data(Augmented()) == first


def test_the_random_states_are_as_before_even_after_a_failing_sample() -> None:
    class Failing(Augmented):
        def __getitem__(self, index: int) -> Any:
            super().__getitem__(index)
            raise OSError("no such file")

    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    def seed() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    seed()
    expected = draws()
    seed()
    data_hash.hash_data(Augmented())
    with pytest.raises(OSError, match="no such file"):
        data_hash.hash_data(Failing())
    assert draws() == expected


def test_another_process_finds_the_same_fingerprint() -> None:
    program = (
        "from phalanx.train.loading import data_hash\n"
        + "import torch\n"
        + "samples = [{'x': torch.ones(2), 'y': 'word', 'z': {'b': 1, 'a': 2.5}}] * 3\n"
        + "print(data_hash.hash_data(samples))"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    samples = [{"x": torch.ones(2), "y": "word", "z": {"b": 1, "a": 2.5}}] * 3
    assert found.stdout.strip() == data_hash.hash_data(samples)
