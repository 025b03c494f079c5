"""Names of files: no two alike, none outside its folder."""

from lightning_modules.file_names import file_names


def test_no_two_things_share_a_file() -> None:
    sources = ["a b", "a_b", "A/B", "../x", "all", "Gehen-ä", ".", "a b-2", "a b"]
    names = file_names(sources, taken=["all"], empty="video")
    assert names[0] == "a_b"
    assert names[5] == "Gehen-ä"
    assert names[6] == "video"
    lower = [name.lower() for name in names]
    assert len({*lower, "all"}) == len(sources) + 1
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_a_long_text_becomes_a_short_name() -> None:
    (name,) = file_names(["a person walks " * 40])
    assert len(name) == 80
