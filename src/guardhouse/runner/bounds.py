"""What the operator bounds of workspace and web fetch: quotas, ages, networks, as typed values from plain texts.

Pure: knows no flag, file or environment. Runs in the boot process and in `guardhouse workspace`.
"""

import ipaddress
import re
from dataclasses import asdict, dataclass
from typing import Final

from guardhouse.limits import FETCH_BODY_CEILING_BYTES, FETCH_BODY_FLOOR_BYTES, FETCH_BODY_MAX_BYTES
from guardhouse.wire.operations import WEBFETCH_TIMEOUT_MAX_S

__all__ = [
    "FetchBounds",
    "WorkspaceBounds",
    "parse_age",
    "parse_fetch_size",
    "parse_fetch_timeout",
    "parse_file_count",
    "parse_networks",
    "parse_size",
]

_AGE: Final = re.compile(r"\A(\d{1,9})([smhd]?)\Z")
_AGE_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE: Final = re.compile(r"\A(\d{1,15})([kMGT]?)\Z")
_SIZE_UNITS: Final = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_COUNT: Final = re.compile(r"\A\d{1,12}\Z")
# Networks joined by commas, or by colons as repeated flags are: an IPv6 address has colons itself, a prefix has none.
_NETWORK: Final = re.compile(r"([0-9A-Fa-f.:]+/\d{1,3})(?:[:,]|\Z)")
_NETWORKS_MAX: Final = 256
_DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceBounds:
    """Bounds of the workspace; names and defaults are those of the files worker's settings, and 0 is no bound."""

    quota_bytes: int = 0
    quota_files: int = 0
    spill_max_age_s: float = 7 * _DAY_S
    spill_max_bytes: int = 1024**3
    stale_after_s: float = _DAY_S

    def as_settings(self) -> dict[str, float]:
        """Return them as `files_settings.make_files_settings` takes them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchBounds:
    """Bounds of web fetch.

    Attributes:
        networks: CIDR networks that may be reached although they are private.
        timeout_s: the longest that one page may take, whatever its task asks for.
        max_bytes: the largest page, in bytes as decoded.
    """

    networks: tuple[str, ...] = ()
    timeout_s: float = WEBFETCH_TIMEOUT_MAX_S
    max_bytes: int = FETCH_BODY_MAX_BYTES


def parse_age(text: str) -> float:
    """Return the seconds in ``text``: a number, with s, m, h or d behind it where it is not seconds.

    Raises:
        ValueError: it is none.
    """
    found = _AGE.match(text)
    if found is None:
        raise ValueError("is no age; write for example 90, 30m, 12h or 7d, and 0 for none")
    return float(int(found[1]) * _AGE_UNITS_S[found[2]])


def parse_size(text: str) -> int:
    """Return the bytes in ``text``: a number, with k, M, G or T (powers of 1024) behind it where it is not bytes.

    Raises:
        ValueError: it is none.
    """
    found = _SIZE.match(text)
    if found is None:
        raise ValueError("is no size; write for example 500000, 64M or 2G, and 0 for none")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def parse_file_count(text: str) -> int:
    """Return a number of files.

    Raises:
        ValueError: it is none.
    """
    if not _COUNT.match(text):
        raise ValueError("is no number of files; write for example 100000, and 0 for none")
    return int(text)


def parse_networks(text: str) -> tuple[str, ...]:
    """Return the CIDR networks in ``text``, in their normal form.

    Raises:
        ValueError: something in it is no network, or there are very many.
    """
    found = _NETWORK.findall(text)
    if not found or _NETWORK.sub("", text):
        raise ValueError("is no network; write for example 10.0.0.0/8 or fd00::/8, several joined by commas")
    if len(found) > _NETWORKS_MAX:
        raise ValueError(f"are {len(found)} networks; at most {_NETWORKS_MAX} are taken")
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in found)
    except ValueError as error:
        raise ValueError(f"is no network: {error}") from None


def parse_fetch_timeout(text: str) -> float:
    """Return seconds from 1 to 120.

    Raises:
        ValueError: it is none of them.
    """
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?s?", text):
        raise ValueError("is no number of seconds; write for example 30")
    seconds = float(text.removesuffix("s"))
    if not 1 <= seconds <= WEBFETCH_TIMEOUT_MAX_S:
        raise ValueError(f"is out of range; write 1 to {WEBFETCH_TIMEOUT_MAX_S:g} seconds")
    return seconds


def parse_fetch_size(text: str) -> int:
    """Return the bytes of a page's bound, from 1k to 16M.

    Raises:
        ValueError: it is none of them.
    """
    size = parse_size(text)
    if not FETCH_BODY_FLOOR_BYTES <= size <= FETCH_BODY_CEILING_BYTES:
        raise ValueError("is out of range; write 1k to 16M")
    return size
