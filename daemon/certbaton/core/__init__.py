"""
Decisions: pure functions of (spec, snapshot, policy, now).

Standard library and `certbaton.model` only: no I/O, no clock, no dice.
"""
