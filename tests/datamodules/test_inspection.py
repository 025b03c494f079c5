"""Errors become remarks without losing a word."""

from blocks.errors import SuiteError
from datamodules.inspection import Convertible, Inspectable, Repairable, remark_of
from datamodules.vision import ImageNetDataModule


def test_a_remark_has_the_four_parts_of_the_error_even_of_several_lines() -> None:
    error = SuiteError(
        expected="a tree\n  root/train\n  root/val",
        found="where: is it",
        where="/data",
        cure="find",
    )
    remark = remark_of(error, "warning")
    assert remark.level == "warning"
    assert remark.expected == "a tree\n  root/train\n  root/val"
    assert (remark.found, remark.where, remark.cure) == ("where: is it", "/data", "find")


def test_missing_parts_are_empty() -> None:
    assert remark_of(SuiteError(found="nothing")).expected == ""


def test_imagenet_can_be_inspected_and_converted() -> None:
    data = ImageNetDataModule()
    assert isinstance(data, Inspectable)
    assert isinstance(data, Convertible)
    assert not isinstance(data, Repairable)
