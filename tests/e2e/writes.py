"""
The writes that certbaton makes, in order, as CERTBATON_WRITE_LOG tells them.

A test says that they are these; others die at one of them.
"""

from __future__ import annotations

FIRST = [
    "cluster create Secret",  # the account's key
    "acme newAccount",
    "cluster merge Secret",  # the account's URL
    "cluster create Secret",  # the Journal: key and CSR
    "acme newOrder",
    "cluster merge Secret",  # the order's URL
    "acme challenge",
    "cluster merge Secret",  # it is about to be finalized
    "acme finalize",
    "cluster create Secret",  # the version
    "cluster apply Service",
    "cluster merge Secret",  # the order is closed
    "cluster merge Secret",  # the version: served
    "cluster create Event",
]
RENEWAL = [
    "cluster merge Secret",  # the Journal: key and CSR
    "acme newOrder",
    "cluster merge Secret",  # the order's URL
    "acme challenge",
    "cluster merge Secret",  # it is about to be finalized
    "acme finalize",
    "cluster create Secret",  # the version
    "cluster apply Service",
    "cluster merge Secret",  # the order is closed
    "cluster merge Secret",  # the version: served
    "cluster create Event",
    "cluster merge Secret",  # the old version: marked for deletion
    "cluster delete Secret",  # the old version
]

# Which of a first issuance's is the note that the version is served, counted from 1.
FIRST_NOTED = len(FIRST) - 1
