"""Personal data and secrets in texts, by their shapes and check digits; everything that is shown of them is masked.

These are patterns: they find what looks like an address or a key, and know nothing of people's names. What cannot belong to
anybody does not count: addresses of example.org, offices such as info@, private networks, documentation's IP addresses.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

import phonenumbers

from luthier.data.checks.rows import Row

Found = Iterator[re.Match[str]]

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@(?:[a-zA-Z0-9-]+\.)+[a-zA-Z]{2,24}(?![\w-])")
_NOBODY = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net|edu)|localhost|[\w-]+\.(?:example|test|invalid|local))$"
    r"|^(?:info|support|help|sales|contact|hello|admin|office|team|press|jobs|service|billing|legal|privacy|security|"
    r"webmaster|postmaster|no-?reply|do-?not-?reply|abuse|git|user|username|you|your\.?name|name|someone|email)@",
    re.IGNORECASE,
)
_PHONE = re.compile(r"(?<![\w.,/:#€$£-])(?:\+|00)?\(?\d(?:[\d\u00a0 ()./\u2010-\u2013-]{5,22})\d(?![\w%€]|[.,]\d)")
_LOCAL = re.compile(r"\(\d{2,5}\) ?\d{3,4}[ .-]?\d{3,5}|\d{3}([-.])\d{3}\1\d{4}")
_CALLED = re.compile(
    r"(?:phone|tel|mobile|cell|call|fax|whatsapp|reach|dial|ring|text|hotline|telefon|handy|mobil|ruf|erreich|"
    r"tél|portable|appel|llam|móvil|chiama|cellulare|ligue|bel)\w*\W+(?:\w+\W+){0,4}$",
    re.IGNORECASE,
)
_DATE = re.compile(r"\(?\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b|.*\d{4}[-–]\d{4}$")
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IE", "AT", "CH", "IN", "AU", "BR", "JP")
"""Countries whose numbers are known without their prefix."""

_IBAN = re.compile(r"(?<![\w])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?!\w)")
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters of an IBAN, by country (ISO 13616)."""

_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w]|[.-]\d)")
_BRANDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|"
    r"35\d{14}|62\d{14,17}"
)
_IP4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:])")
_VERSION = re.compile(r"(?:\bv|version|release|firmware|build|==|>=)\W*$", re.IGNORECASE)
_RESOLVERS = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"}

SECRETS: dict[str, re.Pattern[str]] = {
    name: re.compile(rf"(?<![A-Za-z0-9_-]){pattern}(?![A-Za-z0-9])")
    for name, pattern in {
        "AWS access key": r"(?:AKIA|ASIA)[A-Z0-9]{16}",
        "GitHub token": r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
        "GitLab token": r"glpat-[\w-]{20,}",
        "Slack token": r"xox[abeoprs]-[\w-]{10,}",
        "Stripe key": r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
        "Google API key": r"AIza[\w-]{35}",
        "Anthropic key": r"sk-ant-[\w-]{20,}",
        "OpenAI key": r"sk-(?:proj-|svcacct-)?(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{32,}",
        "Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
        "npm token": r"npm_[A-Za-z0-9]{36}",
        "PyPI token": r"pypi-[\w-]{50,}",
        "SendGrid key": r"SG\.[\w-]{16,}\.[\w-]{16,}",
        "Telegram token": r"\d{8,10}:AA[\w-]{33}",
        "JSON web token": r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",
        "password in an address": r"[a-z][a-z0-9+]{2,12}://[^\s:/@]{1,60}:[^\s:/@<>{}\[\]*]{4,60}@[\w.-]+",
    }.items()
}
"""Keys and tokens whose makers gave them a shape of their own."""
_HINT = re.compile(
    r"AKIA|ASIA|gh[pousr]_|github_pat|glpat-|xox[abeoprs]-|[sr]k_|AIza|sk-|hf_|npm_|pypi-|SG\.|:AA|eyJ|://"
)
"""What every one of them has in it."""

_ASSIGNED = re.compile(
    r"(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|passwd|password)[\"']?\s*[:=]\s*"
    r"[\"']([^\s\"'<>{}]{12,80})[\"']",
    re.IGNORECASE,
)
_MADE_UP = re.compile(r"your|example|placeholder|dummy|changeme|insert|xxxx|\*\*\*|\.\.\.|1234567", re.IGNORECASE)
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
RANDOM = 3.3
"""Bits of entropy a character from which on a password or key is no word."""


def emails(text: str) -> Found:
    """E-mail addresses of people."""
    return (match for match in _EMAIL.finditer(text) if not _NOBODY.search(match[0])) if "@" in text else iter(())


def phones(text: str) -> Found:
    """Telephone numbers with their country's prefix; without it, where a word or the brackets say that they are some."""
    for match in _PHONE.finditer(text):
        written = match[0]
        if not 7 <= sum(map(str.isdigit, written)) <= 15 or _DATE.match(written):
            continue
        if written.startswith(("+", "00")):
            regions: tuple[str | None, ...] = (None,)
            written = "+" + written[2:] if written.startswith("00") else written
        elif _LOCAL.fullmatch(written) or _CALLED.search(text, max(0, match.start() - 60), match.start()):
            regions = REGIONS
        else:
            continue
        if any(_is_number(written, region) for region in regions) and not _inside_another(match, text):
            yield match


def _inside_another(number: re.Match[str], text: str) -> bool:
    """Whether the digits are part of a bank account's or a card's."""
    others = (*ibans(text), *cards(text))
    return any(other.start() < number.end() and number.start() < other.end() for other in others)


def _is_number(written: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False


def ibans(text: str) -> Found:
    """Bank accounts whose check digits are right."""
    for match in _IBAN.finditer(text):
        account = re.sub("[ -]", "", match[0])
        moved = "".join(str(int(sign, 36)) for sign in account[4:] + account[:4])
        if IBAN_LENGTHS.get(account[:2]) == len(account) and int(moved) % 97 == 1:
            yield match


def cards(text: str) -> Found:
    """Numbers of payment cards whose check digit is right."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _BRANDS.fullmatch(digits) and luhn(digits):
            yield match


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (divmod(2 * int(digit), 10) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(tens + ones for tens, ones in doubled)) % 10 == 0


def addresses(text: str) -> Found:
    """Public IP addresses, where they are no version's number."""
    for pattern in (_IP4, _IP6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            version = _VERSION.search(text, max(0, match.start() - 12), match.start())
            if address.is_global and not address.is_multicast and match[0] not in _RESOLVERS and not version:
                yield match


def secrets(text: str) -> Found:
    """Keys and tokens of known shapes, and what is random and assigned to a name such as `api_key`."""
    if _HINT.search(text):
        for pattern in SECRETS.values():
            yield from (match for match in pattern.finditer(text) if not _MADE_UP.search(match[0]))
    for match in _ASSIGNED.finditer(text) if "=" in text or ":" in text else ():
        if not _MADE_UP.search(match[1]) and entropy(match[1]) >= RANDOM:
            yield match


def entropy(text: str) -> float:
    """Bits a character, from how often each stands in the text."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def private_keys(text: str) -> Found:
    """The first line of a private key."""
    return _PRIVATE_KEY.finditer(text) if "-----BEGIN " in text else iter(())


SHAPES: dict[str, Callable[[str], Found]] = {
    "private-key": private_keys, "secret": secrets, "credit-card": cards, "iban": ibans, "email": emails, "phone": phones,
    "ip-address": addresses,
}  # fmt: skip
"""Kind → where such data stands in a text."""


def look(kind: str) -> Callable[[Row], str | None]:
    """The check of a row for one kind: what it found, masked."""
    find = SHAPES[kind]

    def check(row: Row) -> str | None:
        found = [masked(match[0], kind) for text in row.texts for match in find(text)]
        return ", ".join(dict.fromkeys(found)) or None

    return check


def masked(written: str, kind: str) -> str:
    """What may be shown of it: enough to find it again, too little to use."""
    if kind == "email":
        name, _, host = written.partition("@")
        return f"{name[0]}•••@{host[0]}•••.{host.rpartition('.')[2]}"
    if kind == "private-key":
        return "-----BEGIN … PRIVATE KEY-----"
    if kind == "secret":
        name = next((name for name, pattern in SECRETS.items() if pattern.search(written)), "assigned secret")
        return f"{name} {written[:4]}•••"
    if kind == "ip-address":
        return f"{re.split('[.:]', written)[0]}.•.•.•"
    ends = 4 if kind == "credit-card" else 2
    digits = [at for at, sign in enumerate(written) if sign.isalnum()]
    kept = {*digits[-ends:], *(digits[:2] if kind == "iban" else ())}
    return "".join("•" if at in digits and at not in kept else sign for at, sign in enumerate(written))


def without(text: str) -> str:
    """The text with all personal data and secrets in it masked."""
    for kind, find in SHAPES.items():
        for match in sorted(find(text), key=lambda match: match.start(), reverse=True):
            text = text[: match.start()] + masked(match[0], kind) + text[match.end() :]
    return text
