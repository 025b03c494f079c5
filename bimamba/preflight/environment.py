"""The step before all others: doctor's findings, without importing anything that could crash."""

from bimamba.doctor import inspect_environment
from bimamba.preflight.case import Case
from blocks.errors import SuiteError


def environment(case: Case) -> str:
    """Refuses what is broken; passes warnings on.

    Raises:
        SuiteError: Something keeps the suite from working at all.
    """
    findings = inspect_environment()
    for found in findings:
        if found.state == "warning":
            case.warn(f"{found.topic}: {found.text}; cure: {found.cure}")
    broken = [found for found in findings if found.state == "broken"]
    if broken:
        raise SuiteError(
            expected="a working installation",
            found="; ".join(f"{found.topic}: {found.text}" for found in broken),
            where="bimamba doctor",
            cure="; ".join(dict.fromkeys(found.cure for found in broken)),
        )
    return next(found.text for found in findings if found.topic == "torch pair")
