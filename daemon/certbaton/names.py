"""
Internationalized names: as people write them, and as certificates have them (RFC 5891).

Certificates, orders and DNS know A-labels only (``xn--…``). People read both forms.
"""

from __future__ import annotations

import idna

_STAR = "*."


def to_ascii(name: str) -> str:
    """
    Give *name*, which may begin with ``*.``, in A-labels and lower case.

    ValueError, with the reason, where it has letters that no DNS name can have, or is too long.
    What is in ASCII already only becomes lower case.
    """
    if name.isascii():
        return name.lower()
    star = _STAR if name.startswith(_STAR) else ""
    try:
        # as browsers read it: upper case and wide forms are folded (UTS 46)
        return star + idna.encode(name.removeprefix(_STAR), uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as exc:
        reason = " ".join(str(exc).split()) or "its letters do not go together"
        raise ValueError(reason) from None


def to_unicode(name: str) -> str:
    """Give *name* as people write it; as it is where it has no other form, or a broken one."""
    if "xn--" not in name:
        return name
    star = _STAR if name.startswith(_STAR) else ""
    try:
        return star + idna.decode(name.removeprefix(_STAR))
    except (idna.IDNAError, UnicodeError):
        return name


def both_forms(name: str) -> str:
    """Give *name* for a person: ``mäh.example (xn--mh-via.example)``, or just the name."""
    written = to_unicode(name)
    return name if written == name else f"{written} ({name})"
