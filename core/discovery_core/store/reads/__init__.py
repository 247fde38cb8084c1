"""What is only read: a flow's contents and figures, for people and for metrics.

Here: queries without locks. Not here: what a move has to know, which the ledger's snapshot tells.
"""
