"""What NO_PROXY exempts, in all the forms that people write."""

from __future__ import annotations

import pytest

from certbaton.noproxy import exempts

NAME, ADDRESS, V6 = "https://ca.corp.example/dir", "https://10.1.2.3/dir", "https://[fd00::1]/dir"
PORT = "https://ca.corp.example:8443/dir"


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", NAME),
        ("localhost,*", NAME),
        ("ca.corp.example", NAME),
        ("corp.example", NAME),
        (".corp.example", NAME),
        ("*.corp.example", NAME),
        (" CORP.example , other", NAME),
        ("ca.corp.example", "https://CA.corp.example./dir"),
        ("ca.corp.example:443", NAME),
        ("corp.example:8443", PORT),
        ("corp.example", PORT),
        ("10.1.2.3", ADDRESS),
        ("10.0.0.0/8", ADDRESS),
        ("10.1.2.3:443", ADDRESS),
        ("fd00::1", V6),
        ("[fd00::1]", V6),
        ("[fd00::1]:443", V6),
        ("10.0.0.0/8,fd00::/8", V6),
    ],
)
def test_what_is_reached_directly(no_proxy: str, url: str) -> None:
    """As Go's programs have it; a name with its dot or without is that name and all below."""
    assert exempts(no_proxy, url)


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", NAME),
        (" , .,*.", NAME),
        ("rp.example", NAME),
        ("a.ca.corp.example", NAME),
        ("corp.example:8443", NAME),
        ("10.1.2.3", "https://110.1.2.3/dir"),
        ("2.3", ADDRESS),
        ("10.1.2.3:8443", ADDRESS),
        ("11.0.0.0/8", ADDRESS),
        ("10.0.0.0/99,[,]:1,::/200", V6),
        ("fd00::/8", ADDRESS),
        ("10.0.0.0/8", NAME),
        ("corp.example", "https://[bad/dir"),
        ("corp.example", "https://ca.corp.example:bad/dir"),
        pytest.param("corp.example:" + "4" * 5000, NAME, id="a port without end"),
    ],
)
def test_what_is_not(no_proxy: str, url: str) -> None:
    """Part of a label is none; and what is neither a name nor a network exempts nothing."""
    assert not exempts(no_proxy, url)
