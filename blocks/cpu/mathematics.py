"""Elementary functions a compiler can turn into vector instructions, and scratch on the stack.

A loop that calls the C library stays scalar; each of these is a handful of multiply-adds. They take
and return float32 or float64. Relative errors are a few units in the last place, times the size of
the exponent where the result is tiny or huge.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.polynomial import Chebyshev, Polynomial

# Without reassoc, which would cancel the rounding by a large constant in exp2, and without nnan and
# ninf, which would lose the user's NaN instead of showing it.
FASTMATH = {"contract", "nsz", "arcp", "afn"}
LOG2_E = math.log2(math.e)


def _polynomial(single: list[float], double: list[float]) -> Any:
    """A polynomial by Horner's rule, in so many terms for float32 and for float64."""

    def horner(context: Any, x: types.Type) -> Any:
        coefficients = single if x == types.float32 else double

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (value,) = arguments
            *lower, result = [value.type(c) for c in coefficients]
            for coefficient in reversed(lower):
                result = builder.fma(result, value, coefficient)
            return result

        return x(x), generate

    return intrinsic(horner)


def _exp2_coefficients(degree: int) -> list[float]:
    """Of 2^x on [-1/2, 1/2]: (2^x - 1) / x interpolated in Chebyshev's nodes."""
    fit = Chebyshev.interpolate(lambda x: np.expm1(x * math.log(2)) / x, degree, (-0.5, 0.5))
    return [1.0, *(float(c) for c in fit.convert(kind=Polynomial, domain=(-1, 1)).coef)]


_two_to_the = _polynomial(_exp2_coefficients(5), _exp2_coefficients(11))
# 2 artanh(w) / w in powers of w^2 <= 1/9, until they fall below the precision.
_artanh = _polynomial(*([2 / (2 * k + 1) for k in range(terms)] for terms in (8, 17)))


def _constants(x: types.Type, *values: float) -> list[Any]:
    """The values in the type of x: a bare Python float would widen float32."""
    return [np.float32(v) if x == types.float32 else float(v) for v in values]


def exp2(x: Any) -> Any:
    """2^x; 0 where that would be denormal, infinite from 2^(largest exponent + 1/2) on."""


@overload(exp2)
def _exp2(x):
    mantissa, bias = (23, 127) if x == types.float32 else (52, 1023)
    # Adding 1.5 * 2^mantissa rounds to an integer that stands in the lowest bits; with the
    # exponent's bias added as well, a shift by the mantissa makes it the power of two.
    zero, low, high, rounding = _constants(x, 0, 1 - bias, 1 + bias, 1.5 * 2**mantissa + bias)

    def implementation(x):
        v = high if x > high else x
        shifted = v + rounding
        fraction = v - (shifted - rounding)
        return zero if x < low else _two_to_the(fraction) * _power(shifted)

    return implementation


@intrinsic
def _power(context: Any, shifted: types.Type) -> Any:
    """2^n, where n + bias stands in the lowest bits."""
    bits, mantissa = (32, 23) if shifted == types.float32 else (64, 52)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(bits)
        exponent = builder.shl(builder.bitcast(arguments[0], integer), integer(mantissa))
        return builder.bitcast(exponent, arguments[0].type)

    return shifted(shifted), generate


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""


@overload(sigmoid)
def _sigmoid(x):
    one, log2_e = _constants(x, 1, LOG2_E)
    return lambda x: one / (one + exp2(-x * log2_e))


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), or x above 20 as torch has it.

    Computed as max(x, 0) + log1p(exp(-|x|)), with log1p(y) = 2 artanh(y / (2 + y)).
    """


@overload(softplus)
def _softplus(x):
    zero, two, log2_e, threshold = _constants(x, 0, 2, LOG2_E, 20)

    def implementation(x):
        y = exp2(-abs(x) * log2_e)
        w = y / (two + y)
        z = (zero if x < zero else x) + w * _artanh(w * w)
        return x if x > threshold else z

    return implementation


def softplus_slope(x: Any) -> Any:
    """The derivative of `softplus`: 1 above its threshold, else the sigmoid."""


@overload(softplus_slope)
def _softplus_slope(x):
    one, threshold = _constants(x, 1, 20)

    def implementation(x):
        slope = sigmoid(x)
        return one if x > threshold else slope

    return implementation


@intrinsic(prefer_literal=True)
def stack(context: Any, like: types.Type, size: types.Type) -> Any:
    """Lays `size` numbers (a literal) of the type of `like` on the stack; returns their address.

    The compiler then knows that they overlap nothing else, without which it would give up turning
    loops over many arrays into vector instructions (4 times slower in the scan's backward).
    """
    if not isinstance(size, types.IntegerLiteral):
        return None
    element = types.unliteral(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(element)
        # cgutils.alloca_once would also fill it, which takes the compiler a minute.
        with builder.goto_entry_block():
            room = builder.alloca(ir.ArrayType(number, size.literal_value))
        room.align = 64
        return builder.bitcast(room, number.as_pointer())

    return types.CPointer(element)(like, size), generate


@intrinsic
def numbers_at(context: Any, address: types.Type, like: types.Type) -> Any:
    """The numbers of the type of `like` that start at a memory address, as a pointer for carray.

    An address and strides reach a kernel within a microsecond; an array of NumPy takes ten.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(like).as_pointer())

    return types.CPointer(like)(address, like), generate


@intrinsic
def own_function(context: Any) -> Any:
    """Keeps the function it is called in apart from its callers, which compile much faster."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic(prefer_literal=True)
def copy_lanes(
    context: Any, target: types.Type, i: types.Type, source: types.Type, j: types.Type, count: Any
) -> Any:
    """target[i : i + count] = source[j : j + count] for flat arrays and a literal count.

    As a loop it would be unrolled and turned into gathers across the loop around it.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, to_index, source_, from_index, _ = arguments
        number = context.get_value_type(target.dtype)
        size = context.get_abi_sizeof(number)
        addresses = [
            builder.gep(cgutils.create_struct_proxy(kind)(context, builder, array).data, [index])
            for kind, array, index in ((target, to, to_index), (source, source_, from_index))
        ]
        cgutils.raw_memcpy(builder, *addresses, cgutils.intp_t(count.literal_value), size)
        return context.get_dummy_value()

    return types.none(target, types.intp, source, types.intp, count), generate


@intrinsic(prefer_literal=True)
def transpose(
    context: Any,
    target: types.Type,
    i: types.Type,
    i_step: types.Type,
    source: types.Type,
    j: types.Type,
    j_step: types.Type,
    count: Any,
) -> Any:
    """target[i + c i_step + r] = source[j + r j_step + c] for r, c < count, a literal power of two.

    Rows change places with columns in halves, quarters and so on, within registers: number by
    number it would cost more than what the kernel then does with them.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    size = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, to_index, to_step, source_, from_index, from_step, _ = arguments
        number = context.get_value_type(target.dtype)
        lanes = ir.VectorType(number, size)
        align = context.get_abi_sizeof(number)

        def row(kind: Any, array: Any, index: Any, step: Any, r: int) -> Any:
            start = builder.add(index, builder.mul(step, step.type(r)))
            memory = cgutils.create_struct_proxy(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(memory, [start]), lanes.as_pointer())

        rows = [
            builder.load(row(source, source_, from_index, from_step, r), align=align)
            for r in range(size)
        ]
        half = size // 2
        while half:
            upper = _lanes(c if not c & half else size + c - half for c in range(size))
            lower = _lanes(c + half if not c & half else size + c for c in range(size))
            for r in range(size):
                if not r & half:
                    pair = rows[r], rows[r + half]
                    rows[r] = builder.shuffle_vector(*pair, upper)
                    rows[r + half] = builder.shuffle_vector(*pair, lower)
            half //= 2
        for r, value in enumerate(rows):
            builder.store(value, row(target, to, to_index, to_step, r), align=align)
        return context.get_dummy_value()

    return types.none(
        target, types.intp, types.intp, source, types.intp, types.intp, count
    ), generate


@intrinsic(prefer_literal=True)
def sum_lanes(context: Any, source: types.Type, i: types.Type, count: Any) -> Any:
    """The sum of source[i : i + count], pair by pair, for a flat array and a literal count."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, _ = arguments
        number = context.get_value_type(source.dtype)
        address = builder.gep(
            cgutils.create_struct_proxy(source)(context, builder, array).data, [index]
        )
        lanes = ir.VectorType(number, count.literal_value)
        value = builder.load(builder.bitcast(address, lanes.as_pointer()), align=4)
        width = count.literal_value
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    _lanes(range(start, start + width)),
                )
                for start in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return source.dtype(source, types.intp, count), generate


def _lanes(indices: Iterable[int]) -> Any:
    """Which lanes a shuffle takes."""
    numbers = [ir.Constant(ir.IntType(32), i) for i in indices]
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)
