"""A certificate beside what the same checks find now."""

from __future__ import annotations

from dgm.runs.certificates import HOLDS, Certificate, CheckLine

SAME_BITS = 1e-4  # bits per sub-pixel: another machine rounds differently


def differences(stated: Certificate, found: Certificate) -> list[str]:
    """What is not as the certificate says, one line each; none if it is confirmed."""
    lines = list[str]()
    for name, old, new in (
        ("the weights", stated.weights, found.weights),
        ("the images", stated.data, found.data),
        ("the kind of likelihood", stated.likelihood, found.likelihood),
        ("the tier", stated.tier, found.tier),
        ("the number of images scored", stated.num_scored, found.num_scored),
    ):
        if old != new:
            lines.append(f"{name}: {_short(old)} in the certificate, {_short(new)} now")
    for path in sorted({*stated.code, *found.code}):
        if stated.code.get(path) != found.code.get(path):
            what = "changed" if path in stated.code and path in found.code else "only in one of the two"
            lines.append(f"the code: {path} is {what}")
    lines += _other_marks(stated.checks, found.checks)
    bits = (stated.bits_per_subpixel, found.bits_per_subpixel)
    if bits[0] is not None and bits[1] is not None and abs(bits[0] - bits[1]) > SAME_BITS:
        lines.append(f"bits per sub-pixel: {bits[0]:.5f} in the certificate, {bits[1]:.5f} now")
    return lines


def confirmation(stated: Certificate, found: Certificate) -> str:
    """How exactly a certificate without differences is confirmed, in one line."""
    if stated.nats is None:
        return "confirmed; no images were scored"
    if stated.nats == found.nats:
        return f"confirmed; the nats of {stated.num_scored:,} images are the same bit for bit"
    return (
        f"confirmed; the nats differ in their last digits (another machine?), their mean by less than {SAME_BITS} bits"
    )


def _other_marks(stated: list[CheckLine], found: list[CheckLine]) -> list[str]:
    now, before = ({line.check: line for line in lines} for lines in (found, stated))
    lines = list[str]()
    for check in [*before, *(check for check in now if check not in before)]:
        old, new = before.get(check), now.get(check)
        if old is None or new is None or old.mark != new.mark:
            marks = f"{old.mark if old else 'not there'} in the certificate, {new.mark if new else 'not there'} now"
            lines.append(f"{check}: {marks}" + (f" ({new.detail})" if new and new.mark != HOLDS else ""))
    return lines


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
