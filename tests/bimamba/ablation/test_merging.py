"""Changes laid over a configuration."""

from bimamba.ablation.merging import expand, leaves, merge

BASE = {
    "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "EMA"}], "logger": None},
    "model": {"network": {"class_path": "Vim", "init_args": {"dim": 8, "depth": 2}}},
}


def test_dotted_and_nested_keys_say_the_same() -> None:
    nested = {"model": {"network": {"init_args": {"dim": 4}}}}
    assert expand({"model.network.init_args.dim": 4}) == nested
    assert merge(BASE, nested) == merge(BASE, {"model.network.init_args.dim": 4})
    assert merge(BASE, nested)["model"]["network"]["init_args"] == {"dim": 4, "depth": 2}


def test_a_class_path_replaces_its_whole_subtree_in_any_spelling() -> None:
    whole = {"class_path": "ViT", "init_args": {"heads": 2}}
    spellings = (
        {"model.network": whole},
        {"model": {"network": whole}},
        {"model.network.class_path": "ViT", "model.network.init_args.heads": 2},
        {"model.network.init_args.heads": 2, "model.network.class_path": "ViT"},
    )
    for changes in spellings:
        assert merge(BASE, changes)["model"]["network"] == whole


def test_a_plus_appends_to_a_list() -> None:
    one = {"class_path": "LearningRateMonitor"}
    for more in (one, [one]):
        merged = merge(BASE, {"trainer.callbacks+": more})["trainer"]
        assert merged["callbacks"] == [{"class_path": "EMA"}, one]
        assert "callbacks+" not in merged
    assert merge({"a": {"b": None}}, {"a.b+": [1]}) == {"a": {"b": [1]}}
    assert merge(BASE, {"trainer.callbacks": [one]})["trainer"]["callbacks"] == [one]


def test_neither_side_is_altered() -> None:
    before = str(BASE)
    changes = {"trainer.callbacks+": [{"class_path": "A"}], "model.network.init_args.dim": 4}
    told = str(changes)
    merge(BASE, changes)["trainer"]["callbacks"].append("x")
    assert (str(BASE), str(changes)) == (before, told)


def test_arguments_may_have_dots_in_their_own_keys() -> None:
    merged = merge(BASE, {"model.options": {"layer.0": 1}})
    assert merged["model"]["options"] == {"layer.0": 1}


def test_readers_are_shown_short_names() -> None:
    changes = expand({"model.init_args.network": {"class_path": "a.b.ViT", "init_args": {"d": 4}}})
    assert list(leaves(changes)) == [("model.network", "ViT"), ("model.network.d", 4)]
