"""Random orders of a token sequence in training, and back: an order is a permutation (L,) of it.

hustvl/Vim knows three: a class token at a random place, all tokens at random places, and the whole
sequence reversed. Unlike there, whoever reads the sequence puts it back first, so that the class
token is never mistaken for a patch, and evaluations have nothing random. torch's generator decides.
"""

import torch
from torch import Tensor


def random_place(length: int) -> Tensor:
    """Order that moves the first token to a random place and keeps the others in theirs."""
    place = torch.randint(length, ())
    rest = torch.arange(length - 1)
    order = torch.zeros(length, dtype=torch.long)
    # Everything up to the token's place moves one forward.
    order[rest + (rest >= place)] = rest + 1
    return order


def random_order(length: int) -> Tensor:
    """Every token at a random place."""
    return torch.randperm(length)


def reversed_order(length: int, probability: float) -> Tensor:
    """With a probability the last token first, else the order as it is."""
    order = torch.arange(length)
    return torch.where(torch.rand(()) < probability, order.flip(0), order)
