"""Moves: what changes a flow. Each locks the flow's row and writes through the ledger.

Here: steps, rounds, the gate, attempts, their claims and results, and what may ask a model. Not
here: who may do it (the doors: operator, execution, api), and reading without changing (reads).
"""
