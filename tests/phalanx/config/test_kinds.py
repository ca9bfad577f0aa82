"""Every leaf of the config says what another value of it means for the weights."""

import dataclasses
import operator
import typing
from typing import Any

from phalanx.compose.compose import compose
from phalanx.compose.digest import digest
from phalanx.config.schema import Config, Kind, Leaf, schema
from tests.phalanx.compose.others import other, with_value

ROUNDING = {
    *("train.threads", "train.compile", "train.channels_last", "train.deterministic", "world.device", "world.backend"),
    *("parallel.bucket_mb", "parallel.static_graph", "train.checkpoint_activations"),
}


def fields(section: type, path: str = "") -> dict[str, typing.Any]:
    """What each field that is no section of its own carries, by its dotted key."""
    hints = typing.get_type_hints(section)
    found: dict[str, typing.Any] = {}
    for entry in dataclasses.fields(section):
        inner, key = hints[entry.name], f"{path}{entry.name}"
        found |= fields(inner, f"{key}.") if dataclasses.is_dataclass(inner) else {key: entry.metadata.get("leaf")}  # type: ignore[arg-type]
    return found


def test_every_leaf_is_of_exactly_one_kind() -> None:
    found = fields(Config)
    assert {key: leaf for key, leaf in found.items() if not isinstance(leaf, Leaf)} == {}
    assert found == schema()
    assert {leaf.kind for leaf in found.values()} == set(Kind)


def test_the_rounding_keys_are_those_of_the_contract() -> None:
    assert {key for key, leaf in schema().items() if leaf.kind is Kind.rounding} == ROUNDING


def test_open_groups_define() -> None:
    for key in ("seed", "model", "data.train", "data.eval", "data.augment", "task", "optim", "schedule"):
        assert schema()[key].kind is Kind.defining


def test_another_value_of_a_defining_key_is_another_name_and_of_another_key_is_not() -> None:
    found = compose([]).config
    names: dict[str, Any] = {}
    for key, leaf in schema().items():
        value = operator.attrgetter(key)(found)
        changed = with_value(found, key, other(key, value))
        assert operator.attrgetter(key)(changed) != value
        assert (digest(changed) != digest(found)) is (leaf.kind is Kind.defining), key
        names[digest(changed)] = key
    assert len(names) == 1 + sum(leaf.kind is Kind.defining for leaf in schema().values()), "each its own"
