"""Which loaders `bimamba check` looks at."""

from types import SimpleNamespace
from typing import Any

from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from bimamba.preflight.data import loaders


def test_data_of_several_heads_is_looked_at_set_by_set() -> None:
    first, second = (DataLoader(list(range(n)), batch_size=2) for n in (5, 8))
    datamodule = SimpleNamespace(
        train_dataloader=lambda: CombinedLoader({"a": first, "b": second}, "min_size"),
        val_dataloader=lambda: first,
    )
    trainer = SimpleNamespace(limit_val_batches=1)
    case: Any = SimpleNamespace(cli=SimpleNamespace(datamodule=datamodule, trainer=trainer))
    assert list(loaders(case)) == [("train", first), ("train", second), ("val", first)]
