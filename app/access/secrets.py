"""Secrets of keys: made so that nobody guesses one, and that scanners know one when they see it."""

import re
import secrets
import string
import zlib
from hashlib import sha256

# What scanners of repositories and logs should look for. The last six characters are a checksum of those between.
PATTERN = r"\btsk_[0-9A-Za-z]{38}\b"
PREFIX = "tsk_"
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase

_FORM = re.compile(PATTERN.replace(r"\b", "").encode())


def make_secret() -> str:
    """190 random bits, so that a plain hash of them is as good as a slow one."""
    random = "".join(secrets.choice(DIGITS) for _ in range(RANDOM_LENGTH))
    return f"{PREFIX}{random}{checksum(random)}"


def checksum(random: str) -> str:
    """The CRC-32 of the characters in base 62, six digits, the most significant first."""
    rest, digits = zlib.crc32(random.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits


def is_well_formed(secret: bytes) -> bool:
    """Whether it could be one of ours, which tells nothing about whether it is."""
    if _FORM.fullmatch(secret) is None:
        return False
    said = secret.decode()
    return checksum(said[len(PREFIX) : -CHECKSUM_LENGTH]) == said[-CHECKSUM_LENGTH:]


def digest(secret: bytes) -> bytes:
    return sha256(secret).digest()
