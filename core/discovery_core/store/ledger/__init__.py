"""The ledger: a flow's record. Its state and history, and what follows from each entry.

Here: the one place that changes a state (transition), the outbox, approval requests, lessons, and
the snapshot that decisions are made from. Not here: when to change what, which is the moves'.
"""
