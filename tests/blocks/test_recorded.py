"""Recorded constructor calls: enough to rebuild, plain data only, no surprise for Python."""

import copy
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.recorded import plain, record_call


@dataclass(frozen=True)
class Point:
    x: float = 0.0
    tags: tuple[str, ...] = ("a",)


@dataclass
class Line:
    start: Point = field(default_factory=Point)


class Net(Recorded, nn.Module):
    def __init__(self, dim: int, depth: int = 2, *, bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim, bias=bias) for _ in range(depth))


class DeepNet(Net):
    def __init__(self, width: int) -> None:
        super().__init__(dim=width * 2, depth=3)


class Heir(Net):
    """Takes the constructor over as it is."""


class Pair(Recorded, nn.Module):
    def __init__(self, left: nn.Module, right: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.left, self.right = left, right


class Anything(Recorded):
    def __init__(self, value: object = None) -> None:
        self.value = value


class Open(Recorded):
    """Hands options on, as many third-party networks do."""

    def __init__(self, dim: int, **options: object) -> None:
        self.dim, self.options = dim, options


class Variadic(Recorded):
    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes


def call(**init_args: object) -> dict[str, Any]:
    return {"class_path": f"{__name__}.Net", "init_args": init_args}


@pytest.mark.parametrize(
    "net",
    [lambda: Net(4, 2), lambda: Net(4), lambda: Net(depth=2, dim=4), lambda: Net(4, bias=True)],
    ids=["positional", "defaults", "keywords", "keyword-only"],
)
def test_every_spelling_of_a_call_is_recorded_alike(net: Any) -> None:
    assert net().init_call == call(dim=4, depth=2, bias=True)


def test_the_record_rebuilds_the_network() -> None:
    first = Net(3, depth=1, bias=False)
    second = Net(**first.init_call["init_args"])
    assert second.load_state_dict(first.state_dict())
    assert second.init_call == first.init_call


def test_inheritance_records_the_outermost_call() -> None:
    net = DeepNet(4)
    assert net.init_call == {"class_path": f"{__name__}.DeepNet", "init_args": {"width": 4}}
    assert Heir(5).init_call["class_path"] == f"{__name__}.Heir"
    assert Heir(5).init_call["init_args"] == {"dim": 5, "depth": 2, "bias": True}


def test_networks_inside_networks_become_their_own_calls() -> None:
    pair = Pair(Net(1), right=Net(2, 1), names=["a", "b"])
    assert pair.init_call["init_args"] == {
        "left": call(dim=1, depth=2, bias=True),
        "right": call(dim=2, depth=1, bias=True),
        "names": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ((1, (2, "x")), [1, [2, "x"]]),
        ({3}, [3]),
        ({"a": (1,), 2: None}, {"a": [1], "2": None}),
        (Point(2.0), {"x": 2.0, "tags": ["a"]}),
        (Line(), {"start": {"x": 0.0, "tags": ["a"]}}),
        (Path("a") / "b", str(Path("a") / "b")),
        ([Point()], [{"x": 0.0, "tags": ["a"]}]),
    ],
)
def test_arguments_become_plain_data(value: object, expected: object) -> None:
    found = Anything(value).init_call["init_args"]["value"]
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


def test_a_changed_argument_does_not_change_the_record() -> None:
    sizes = [1, 2]
    thing = Anything(sizes)
    sizes.append(3)
    assert thing.init_call["init_args"] == {"value": [1, 2]}


@pytest.mark.parametrize(
    "value", [nn.Linear(1, 1), torch.ones(2), len, Point, lambda x: x, object()]
)
def test_what_no_checkpoint_can_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises(SuiteError, match="constructor argument value"):
        Anything(value)


def test_the_refusal_names_the_place_inside_a_container() -> None:
    with pytest.raises(SuiteError, match=r"argument value\.start\.x"):
        Anything(Line(Point(x=torch.ones(1))))  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match=r"argument value\.loss"):
        Anything({"loss": len})


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_keep_the_record(copied: Any) -> None:
    net = Net(3, bias=False)
    twin = copied(net)
    assert type(twin) is Net
    assert twin.init_call == net.init_call
    assert twin.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_keep_the_record(protocol: int) -> None:
    net = pickle.loads(pickle.dumps(Net(3, 1), protocol))
    assert net.init_call == call(dim=3, depth=1, bias=True)
    assert net.layers[0].weight.shape == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"missing 1 required positional argument: 'dim'"),
        ({"dim": 1, "width": 2}, r"unexpected keyword argument 'width'"),
    ],
)
def test_a_wrong_call_gets_pythons_own_message(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Net(**arguments)  # type: ignore[arg-type]


def test_the_record_is_no_part_of_the_weights() -> None:
    assert all(name.startswith("layers.") for name in Net(2).state_dict())


def test_options_handed_on_are_recorded_as_given() -> None:
    first = Open(2, scale=0.5, mode="x")
    assert first.init_call["init_args"] == {"dim": 2, "scale": 0.5, "mode": "x"}
    assert Open(**first.init_call["init_args"]).options == first.options


def test_arguments_without_a_name_cannot_be_recorded() -> None:
    with pytest.raises(SuiteError, match="sizes"):
        Variadic(1, 2)


def test_networks_of_other_libraries_can_be_recorded() -> None:
    layer = nn.Linear(2, 3)
    record_call(layer, 2, out_features=3)
    recorded = plain(layer)
    assert recorded["class_path"] == "torch.nn.modules.linear.Linear"
    assert recorded["init_args"]["in_features"] == 2
    assert nn.Linear(**recorded["init_args"]).weight.shape == (3, 2)


def test_defaults_that_are_no_data_are_left_to_the_constructor() -> None:
    from timm.models.vision_transformer import VisionTransformer

    given = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
    network = VisionTransformer(**given)  # type: ignore[arg-type]
    record_call(network, **given)
    init_args = network.init_call["init_args"]
    assert init_args["num_classes"] == 1000
    assert "block_fn" not in init_args
    assert json.loads(json.dumps(init_args)) == init_args
    assert VisionTransformer(**init_args).load_state_dict(network.state_dict())
