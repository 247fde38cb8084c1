"""Which rows that share a key are one machine, by everything else that is known of them.

A copied virtual machine keeps its UUID, and blades show the serial number of their chassis. Rows of
one key with different names are one machine only where a name, a domain name or an address of
theirs is the same, and two virtual machines of one file never are.
"""

from __future__ import annotations

import duckdb

# columns of the typed rows that are about the machine, but no field's
VM_ID, VCENTER = "__vm_id", "__vcenter"


def find_machines(connection: duckdb.DuckDBPyConnection, level: int, labels: str) -> None:
    """Make the table `machines` (row, k, machine) of the rows whose key of this level is contested.

    Rows of one key that have the same `machine` are one. `labels` is the column of what two rows of
    a machine have in common beside the key. What a key's rows are linked by may be a
    chain: the smallest row of each is handed on, and then from there, so that the number of steps
    grows with the logarithm of the chain's length.
    """
    key = f"k{level}"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE machines AS
        WITH several AS (
            SELECT {key} AS k FROM identified WHERE level >= 0 AND level <= {level}
                AND {key} IS NOT NULL
            GROUP BY 1 HAVING count(DISTINCT label) > 1 OR count(DISTINCT vm_id) > 1
        )
        SELECT row, {key} AS k, row AS machine, {labels} AS labels, label,
            CASE WHEN vm_id IS NOT NULL AND {VCENTER} IS NOT NULL THEN vm END AS vm,
            coalesce(vm_id, CASE WHEN min(vm_id) OVER named = max(vm_id) OVER named
                THEN min(vm_id) OVER named END, '') AS vm_id
        FROM identified JOIN several ON several.k = {key}
        WHERE level >= 0 AND level <= {level}
        WINDOW named AS (PARTITION BY {key}, label)
        """  # noqa: S608 - numbers only
    )
    if not connection.execute("SELECT count(*) FROM machines").fetchall()[0][0]:
        return
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE shared_labels AS "
        "SELECT row, dense_rank() OVER (ORDER BY k, vm_id, l) AS shared "
        "FROM (SELECT row, k, vm_id, unnest(labels) AS l FROM machines) "
        "QUALIFY count(*) OVER (PARTITION BY k, vm_id, l) > 1"
    )
    # a virtual machine's rows are one whatever they call it
    connection.execute(
        "UPDATE machines SET machine = o.least FROM (SELECT k, vm, min(row) AS least "
        "FROM machines WHERE vm IS NOT NULL GROUP BY k, vm) AS o "
        "WHERE machines.k = o.k AND machines.vm = o.vm"
    )
    while _hand_on(connection):
        pass
    _join_nameless(connection)


def _hand_on(connection: duckdb.DuckDBPyConnection) -> bool:
    changed = connection.execute(
        """
        UPDATE machines SET machine = o.least FROM (
            SELECT m.machine, min(s.least) AS least
            FROM (SELECT row, min(machine) OVER (PARTITION BY shared) AS least
                  FROM shared_labels JOIN machines USING (row)) AS s
            JOIN machines m ON m.row = s.row GROUP BY m.machine
        ) AS o WHERE machines.machine = o.machine AND o.least < machines.machine
        """
    ).fetchall()
    connection.execute(
        "UPDATE machines SET machine = o.machine FROM machines AS o "
        "WHERE o.row = machines.machine AND o.machine < machines.machine"
    )
    return bool(changed and changed[0][0])


def _join_nameless(connection: duckdb.DuckDBPyConnection) -> None:
    """Rows of which nothing contradicts the key join the key's machine where that is only one."""
    connection.execute(
        """
        UPDATE machines SET machine = coalesce(single.machine, nameless.machine) FROM (
            SELECT k, min(machine) AS machine FROM machines WHERE label IS NULL AND vm_id = ''
            GROUP BY k
        ) AS nameless LEFT JOIN (
            SELECT k, min(machine) AS machine FROM machines WHERE label IS NOT NULL OR vm_id <> ''
            GROUP BY k HAVING count(DISTINCT machine) = 1
        ) AS single ON single.k = nameless.k
        WHERE machines.k = nameless.k AND machines.label IS NULL AND machines.vm_id = ''
            AND machines.machine NOT IN (
                SELECT machine FROM machines WHERE label IS NOT NULL OR vm_id <> '')
        """
    )
