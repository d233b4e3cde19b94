"""How long the hub's certificate is still good for, and the words for a log when that is not long.

Knows no clock: the time is given. Runs in the hub, at start, at each reload and once a day.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from guardhouse.errors import SetupError

__all__ = ["CertificateNotice", "certificate_notice", "read_validity"]

CertificateNotice = tuple[str, Mapping[str, str | int]]

# Public authorities renew a third of 90 days before the end, or later; less than this means that nothing renews it.
SOON_DAYS: Final = 14


def read_validity(certificate: Path) -> tuple[datetime, datetime]:
    """Return from when until when the first certificate of a PEM chain is valid, in UTC.

    Raises:
        SetupError: it cannot be read.
    """
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read certificate {str(certificate)!r}: {error}; it must be PEM") from error
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def certificate_notice(validity: tuple[datetime, datetime], *, now_ms: int) -> CertificateNotice | None:
    """Return the event and the details to log of a certificate that is over, not yet valid, or over soon; else None."""
    begins, ends = validity
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    if now >= ends:
        hint = "no client connects: renew it and reload, or set this host's clock"
        return "certificate_expired", {"ended": ends.isoformat(), "hint": hint}
    if now < begins:
        hint = "no client connects: is this host's clock right?"
        return "certificate_not_yet_valid", {"begins": begins.isoformat(), "hint": hint}
    days = (ends - now).days
    if days < SOON_DAYS:
        return "certificate_ends_soon", {"ends": ends.isoformat(), "days": days, "hint": "renew it and reload"}
    return None
