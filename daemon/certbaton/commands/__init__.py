"""
What a person does by hand: renew, revoke, rehearse, and the accounts.

Each command is a few single writes with preconditions, and can be given again; none needs the
Lease, and none does the daemon's work. ``app`` is the command line, the other modules what it
does, on a `desk.Desk`.
"""
