"""Forward types: the words by which VMamba (Liu et al., 2024) names the forms of its 2-D scan.

A type is a version and suffixes in any order, "v05_noz_oact":

    v0, v01 .. v05, v2, v3   cross scan: rows, columns, and both backwards
    v051d                    four scans over the rows, all forward
    v052d                    two forward, two backward over the rows
    v052dc                   cascade: each row by itself, then each column by itself

    _noz _nozact             no gate; a gate without its activation
    _oact                    GELU after the output norm
    _onnone _onsoftmax _onsigmoid _ondwconv3 _oncnorm
                             instead of LayerNorm: nothing, softmax over the positions, sigmoid,
                             a depthwise 3x3 convolution, LayerNorm and that convolution
    _no32                    v01, v02, v2: the scan writes the 16-bit type it reads

Source: MzeroMiko/VMamba, classification/models/vmamba.py. The versions of one line differ there in
kernels only, hence not here.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from blocks.errors import SuiteError

_CROSS = ">v<^"
_PATHS = dict.fromkeys(("v0", "v01", "v02", "v03", "v04", "v05", "v2", "v3"), _CROSS) | {
    "v051d": ">>>>",
    "v052d": ">><<",
    "v052dc": "><><",
}
# Upstream's kernels of these write what they read; all others write float32 in any case.
_NARROW = ("v01", "v02", "v2")
_NORMS = ("none", "softmax", "sigmoid", "dwconv3", "cnorm")
_SUFFIXES = ("noz", "nozact", "oact", "no32", *(f"on{norm}" for norm in _NORMS))


@dataclass(frozen=True)
class ForwardType:
    """A forward type, taken apart.

    Args:
        paths: Walk of each of the four directions, see `blocks.scan.paths`.
        cascade: Whether the first two walk each row, then the last two each column.
        gate: Whether a gate exists and goes through the activation.
        out_norm: What normalises the sum of the directions.
        out_activation: Whether GELU follows.
        float32_scan: Whether the scan writes float32 when its input has 16 bits.
    """

    paths: str
    cascade: bool
    gate: Literal["activated", "plain", "none"]
    out_norm: str
    out_activation: bool
    float32_scan: bool


def parse_forward_type(text: str) -> ForwardType:
    """Takes a forward type apart.

    Raises:
        SuiteError: A version or suffix that does not exist, or suffixes that exclude each other.
    """
    version, *suffixes = text.split("_")
    if version not in _PATHS:
        raise _unknown(text, version, tuple(_PATHS), "a version")
    for suffix in suffixes:
        if suffix not in _SUFFIXES:
            raise _unknown(text, suffix, _SUFFIXES, "suffixes")
    gates = [suffix for suffix in suffixes if suffix in ("noz", "nozact")]
    norms = [suffix[2:] for suffix in suffixes if suffix[2:] in _NORMS]
    if len(set(suffixes)) < len(suffixes) or len(gates) > 1 or len(norms) > 1:
        raise _misfit(text, "each suffix once, one of _noz and _nozact, one output norm")
    if version == "v0" and suffixes:
        raise _misfit(text, "v0 without suffixes; v01 is the same with them")
    return ForwardType(
        paths=_PATHS[version],
        cascade=version == "v052dc",
        gate="activated" if not gates else "none" if gates == ["noz"] else "plain",
        out_norm=norms[0] if norms else "layer",
        out_activation="oact" in suffixes,
        float32_scan=not ("no32" in suffixes and version in _NARROW),
    )


def _unknown(text: str, word: str, known: tuple[str, ...], what: str) -> SuiteError:
    near = get_close_matches(word, known, n=1, cutoff=0.0)[0]
    return SuiteError(
        expected=f"{what} among " + ", ".join(known),
        found=f"{word!r} in {text!r}",
        where="SS2D(forward_type=...)",
        cure=f"did you mean {near!r}?",
    )


def _misfit(text: str, expected: str) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=repr(text),
        where="SS2D(forward_type=...)",
        cure="the released models use v05_noz, the first ones v0",
    )
