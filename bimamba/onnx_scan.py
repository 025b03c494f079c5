"""The recurrence of the selective scan as ONNX's `Scan`: a loop over time that is never unrolled.

    h = exp(s A) h + x B;  y = C . h,   x = s u

Shapes: u, s (B, D, L), A (D, N), B, C (B, G, N, L); inside, time first and channels as (G, P).
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"
from typing import Any

from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

_domain = Opset("bimamba", 1)


@script(_domain, default_opset=op)
def forward_recurrence(
    h: FLOAT, A: FLOAT, s: FLOAT, x: FLOAT, B: FLOAT, C: FLOAT
) -> tuple[FLOAT, FLOAT]:
    """From the first step to the last; h (B, G, P, N), A (G, P, N), the others time first."""

    @graph()
    def step(h_before, s_t, x_t, B_t, C_t):  # noqa: ANN001, ANN202
        last = op.Constant(value_ints=[-1])
        before_last = op.Constant(value_ints=[-2])
        decay = op.Exp(op.Mul(op.Unsqueeze(s_t, last), A))
        added = op.Mul(op.Unsqueeze(x_t, last), op.Unsqueeze(B_t, before_last))
        h_after = op.Add(op.Mul(decay, h_before), added)
        y_t = op.ReduceSum(op.Mul(h_after, op.Unsqueeze(C_t, before_last)), last, keepdims=0)
        return h_after, y_t

    h_last, y = op.Scan(h, s, x, B, C, body=step, num_scan_inputs=4)
    return y, h_last


@script(_domain, default_opset=op)
def backward_recurrence(
    h: FLOAT, A: FLOAT, s: FLOAT, x: FLOAT, B: FLOAT, C: FLOAT
) -> tuple[FLOAT, FLOAT]:
    """From the last step to the first."""

    @graph()
    def step(h_before, s_t, x_t, B_t, C_t):  # noqa: ANN001, ANN202
        last = op.Constant(value_ints=[-1])
        before_last = op.Constant(value_ints=[-2])
        decay = op.Exp(op.Mul(op.Unsqueeze(s_t, last), A))
        added = op.Mul(op.Unsqueeze(x_t, last), op.Unsqueeze(B_t, before_last))
        h_after = op.Add(op.Mul(decay, h_before), added)
        y_t = op.ReduceSum(op.Mul(h_after, op.Unsqueeze(C_t, before_last)), last, keepdims=0)
        return h_after, y_t

    h_last, y = op.Scan(
        h, s, x, B, C, body=step, num_scan_inputs=4, scan_input_directions=[1, 1, 1, 1],
        scan_output_directions=[1],
    )  # fmt: skip
    return y, h_last


def translated_recurrence(u: Any, s: Any, A: Any, B: Any, C: Any, backwards: bool) -> Any:
    """Y (B, D, L) and the last state (B, D, N) of `bimamba::recurrence`."""
    rest = op.Constant(value_ints=[-1])
    groups = op.Shape(B, start=1, end=2)
    states = op.Shape(A, start=1)
    grouped = op.Concat(op.Shape(u, end=1), groups, rest, op.Shape(u, start=2), axis=0)

    def time_first(x: Any) -> Any:
        """(B, D, L) to (L, B, G, P)."""
        return op.Transpose(op.Reshape(x, grouped), perm=[3, 0, 1, 2])

    s_LBGP = time_first(s)
    x_LBGP = op.Mul(s_LBGP, time_first(u))
    B_LBGN, C_LBGN = (op.Transpose(x, perm=[3, 0, 1, 2]) for x in (B, C))
    A_GPN = op.Reshape(A, op.Concat(groups, rest, states, axis=0))
    zero = op.CastLike(op.Constant(value_float=0.0), A)
    h = op.Expand(zero, op.Concat(op.Shape(u, end=1), op.Shape(A_GPN), axis=0))
    recurrence = backward_recurrence if backwards else forward_recurrence
    y_LBGP, h = recurrence(h, A_GPN, s_LBGP, x_LBGP, B_LBGN, C_LBGN)
    y = op.Reshape(op.Transpose(y_LBGP, perm=[1, 2, 3, 0]), op.Shape(u))
    return y, op.Reshape(h, op.Concat(op.Shape(u, end=2), states, axis=0))
