"""The one error of the suite: what was expected, what was found, where, and the cure.

Library code raises it; the command prints its four lines instead of a traceback.
"""

_MARK = "expected: "


class SuiteError(ValueError):
    """A mistake somebody can mend, told in four parts.

    Args:
        message: The finished text. Only needed by a DataLoader, which rebuilds a worker's
            exception from one string; whatever stands before the four lines is cut off.
        expected: What the code needs, in the user's words.
        found: What it got instead.
        where: File, config key or argument.
        cure: What to do next, as an imperative sentence.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: str = "",
        found: str = "",
        where: str = "",
        cure: str = "",
    ) -> None:
        parts = {"expected": expected, "found": found, "where": where, "cure": cure}
        text = "\n".join(f"{name}: {part}" for name, part in parts.items() if part)
        super().__init__(text or message[max(message.rfind(_MARK), 0) :].rstrip())
