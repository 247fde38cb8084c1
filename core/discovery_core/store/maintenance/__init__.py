"""Maintenance: data that goes by age or with its namespace, and what follows a restore.

Here: what the operator's retention and an administrator's commands do to whole flows and tenants.
Not here: a flow's own moves.
"""
