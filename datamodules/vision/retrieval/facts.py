"""What `bimamba data describe` says of a retrieval set."""

from collections import Counter

from datamodules.vision.retrieval.records import SPLITS, Listing


def facts_of(listing: Listing) -> dict[str, str | int | float]:
    """Facts in the order in which they should be read.

    Args:
        listing: The set.
    """
    facts: dict[str, str | int | float] = {
        "layout": listing.layout,
        "folder": str(listing.home),
        "protocol": listing.protocol,
    }
    if listing.direction:
        facts["direction"] = listing.direction.replace("_", " ")
    if len(listing.views) > 1:
        facts["views"] = ", ".join(listing.views)
    for split in SPLITS:
        records = listing.of(split)
        images = Counter(record.identity for record in records)
        nobody = images.pop(listing.distractor, 0) if listing.distractor is not None else 0
        facts[f"{split} images"] = len(records)
        facts[f"{split} identities"] = len(images)
        if listing.protocol == "cmc_camera":
            facts[f"{split} cameras"] = len({record.camera for record in records})
        if images:
            counts = sorted(images.values())
            middle = counts[len(counts) // 2]
            facts[f"{split} images of an identity"] = (
                f"{counts[0]} to {counts[-1]}, median {middle}"
            )
        if nobody:
            facts[f"{split} images of nobody"] = nobody
    return facts
