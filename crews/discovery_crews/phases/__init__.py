"""The six phases, one package each: `phase.py` runs it, `config/` has its agents and tasks.

A phase knows readers, mapping and the other libraries beside this folder, and no other phase: what
one hands to the next is an artefact.
"""
