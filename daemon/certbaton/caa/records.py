"""CAA records as they are read: properties, and the grammar of ``issue`` (RFC 8659 section 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_SHOWN: Final = 200

_LABEL = "[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PARAMETER = re.compile(rf"({_LABEL})[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)")
_METHOD = re.compile("[A-Za-z0-9-]+")

# By the bit's number in RFC 8659 section 4.1; and 1, which many people write in its place, and
# which Boulder therefore takes for it.
_CRITICAL: Final = 0x80 | 0x01

# Those that CAs know though they have no say here: incident reports, and S/MIME (RFC 9495).
_KNOWN: Final = frozenset({"issue", "issuewild", "iodef", "issuemail"})


@dataclass(frozen=True, slots=True)
class Property:
    """One CAA record: *flags*, *tag* in lower case, and *value* as it came."""

    flags: int
    tag: str
    value: bytes

    @property
    def is_in_the_way(self) -> bool:
        """Whether a CA that does not know the tag must not issue (section 4.1)."""
        return self.tag not in _KNOWN and bool(self.flags & _CRITICAL)

    def __str__(self) -> str:
        """As in a zone file, on one printable line of bounded length."""
        return f'{self.flags} {one_line(self.tag, 30)} "{one_line(self.value)}"'


@dataclass(frozen=True, slots=True)
class Found:
    """
    What was found for *name*: the relevant record set (RFC 8659 section 3), or *trouble*.

    *owner* is the name that was asked for it, *name* itself or one above; *target* is where the
    records stand if *owner* is an alias. Both are empty where there are no records. *trouble*
    says why nothing is known.
    """

    name: str
    owner: str = ""
    target: str = ""
    records: tuple[Property, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """
    What one ``issue`` or ``issuewild`` property grants: to *domain*, ``""`` being nobody.

    *account* and *methods* are RFC 8657's, None where there is no such parameter. With *fault*
    a CA must take the property for one that grants nothing.
    """

    domain: str
    account: str | None = None
    methods: tuple[str, ...] | None = None
    fault: str | None = None


def read_grant(value: bytes) -> Grant:
    """Read the value of an ``issue`` or ``issuewild`` property; never raises."""
    text = value.decode("latin-1")  # one character a byte: what is not ASCII is in no grammar
    head, semicolon, tail = text.partition(";")
    domain = head.strip(" \t")
    if domain and not _DOMAIN.fullmatch(domain):
        return Grant("", fault=f'"{one_line(domain, 80)}" is not the name of a domain')
    if not semicolon or not tail.strip(" \t"):
        return Grant(domain)
    accounts: list[str] = []
    methods: list[str] = []
    fault = None
    for part in tail.split(";"):
        found = _PARAMETER.fullmatch(part.strip(" \t"))
        if found is None:
            shown = one_line(part, 80)
            fault = f'"{shown}" is not of the form tag=value' if shown else "a parameter is empty"
            continue
        tag, given = found[1].lower(), found[2]
        if tag == "accounturi":
            accounts.append(given)
        elif tag == "validationmethods":
            methods.append(given)
    if len(accounts) > 1:
        fault = "it has accounturi more than once"
    elif len(methods) > 1:
        fault = "it has validationmethods more than once"
    names = tuple(methods[0].split(",")) if methods else None
    if names and not all(_METHOD.fullmatch(name) for name in names):
        fault = fault or f'validationmethods "{one_line(methods[0], 80)}" is not a list of methods'
    return Grant(domain, accounts[0] if accounts else None, names, fault)


def one_line(text: str | bytes, limit: int = MAX_SHOWN) -> str:
    """Give *text*, which anybody may have written, as one printable line of ASCII."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("latin-1")
    line = " ".join(text[: 4 * limit].split())
    line = "".join(each if " " <= each <= "~" else "?" for each in line)
    return line if len(line) <= limit else line[:limit] + "..."
