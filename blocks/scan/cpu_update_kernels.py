"""The loops of a single step of the scan on a CPU.

LANES channels at a time: step sizes and gates are vectors over channels, a state is a vector over
its N numbers. Axes: B sequence, D channel, N state, W lane.
"""

from collections.abc import Callable
from typing import Any

from numba import carray

from blocks.cpu.mathematics import LOG2_E, exp2, numbers_at, sigmoid, softplus, stack, sum_lanes


def update_kernel(compile: Callable[..., Any], states: int, lanes: int, real: type) -> Any:
    """The loops for a number of states and a precision.

    Args:
        compile: Decorator that compiles them.
        states: N.
        lanes: Channels at a time.
        real: np.float32 or np.float64.
    """
    N, W, ZERO, TO_BASE_2 = states, lanes, real(0), real(LOG2_E)
    POWER = 1 << max(states - 1, 0).bit_length()

    @compile
    def update(begin, end, channels, state, addresses, strides, out):
        u_at, delta_at, B_at, C_at, z_at = strides
        size = channels * N
        u = carray(numbers_at(addresses[0], ZERO), (end * u_at + channels,))
        delta = carray(numbers_at(addresses[1], ZERO), (end * delta_at + channels,))
        A = carray(numbers_at(addresses[2], ZERO), (size,))
        B = carray(numbers_at(addresses[3], ZERO), (end * B_at + N,))
        C = carray(numbers_at(addresses[4], ZERO), (end * C_at + N,))
        D = carray(numbers_at(addresses[5], ZERO), (channels,))
        z = carray(numbers_at(addresses[6], ZERO), (end * z_at + channels,))
        bias = carray(numbers_at(addresses[7], ZERO), (channels,))
        h = carray(numbers_at(state, ZERO), (end * size,))
        y = carray(numbers_at(out, ZERO), (end * channels,))
        s_W, su_W = carray(stack(ZERO, W), (W,)), carray(stack(ZERO, W), (W,))
        y_W, hC_N = carray(stack(ZERO, W), (W,)), carray(stack(ZERO, POWER), (POWER,))
        B_N, C_N = carray(stack(ZERO, N), (N,)), carray(stack(ZERO, N), (N,))
        h_N = carray(stack(ZERO, N), (N,))
        for n in range(POWER):
            hC_N[n] = ZERO
        for b in range(begin, end):
            for n in range(N):
                B_N[n], C_N[n] = B[b * B_at + n], C[b * C_at + n]
            for first in range(0, channels, W):
                count = min(W, channels - first)
                for j in range(count):
                    c = first + j
                    s_W[j] = softplus(delta[b * delta_at + c] + bias[c])
                    su_W[j] = s_W[j] * u[b * u_at + c]
                    s_W[j] *= TO_BASE_2
                for j in range(count):
                    at, s, su = b * size + (first + j) * N, s_W[j], su_W[j]
                    for n in range(N):
                        a = exp2(s * A[(first + j) * N + n])
                        h_N[n] = a * h[at + n] + su * B_N[n]
                        hC_N[n] = h_N[n] * C_N[n]
                    for n in range(N):
                        h[at + n] = h_N[n]
                    y_W[j] = sum_lanes(hC_N, 0, POWER)
                for j in range(count):
                    c = first + j
                    gate = z[b * z_at + c]
                    y[b * channels + c] = (y_W[j] + D[c] * u[b * u_at + c]) * gate * sigmoid(gate)

    return update
