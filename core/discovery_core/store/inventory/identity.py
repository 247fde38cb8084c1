"""Which rows of several sources are one asset: SQL over what the sources know them by.

Each flow has already merged its own rows. Between flows a shared key joins two assets where it is
clear: no flow knows two assets by it, and nothing that is known of them speaks against it: another
serial number, another virtual machine of another vCenter, for weaker keys another full domain name,
and for serial numbers and UUIDs another name, unless a domain name or an address is the same. What
is not clear stays apart, since two assets can be merged later and one that was mixed up cannot be
parted; a person may decide it. The answer depends on the accepted rows and the decisions alone, so
two flows that end in either order give the same inventory.

An identity that two flows give to machines which contradict each other is no asset's: each of those
has it with its own name behind it (`nodes`), as a crew writes it for two such machines of one file.
"""

from __future__ import annotations

# How surely assets with the same key are one; the crews' confidences for their own rows, but
# less for a name alone, which another source may have given to something else.
KEY_CONFIDENCE = {
    "serial_number": 0.95,
    "asset_id": 0.9,
    "fqdn": 0.9,
    "name_and_ip": 0.8,
    "name": 0.6,
    "ip_address": 0.5,
}
_STRENGTH = ", ".join(f"('{kind}', {n})" for n, kind in enumerate(KEY_CONFIDENCE))
_CONFIDENCE = " ".join(
    f"WHEN {n} THEN {confidence}" for n, confidence in enumerate(KEY_CONFIDENCE.values())
)

# Strengths that are no key's: a person said so; nothing joined them.
BY_HAND, ALONE = -1, 99
# Two virtual machines: of another vCenter and with another id there.
_OTHER_VM = "count(DISTINCT vcenters) > 1 AND count(DISTINCT vm_ids) > 1"
_COMPATIBLE = (
    f"count(DISTINCT serials) <= 1 AND count(DISTINCT asset_type) <= 1 AND NOT ({_OTHER_VM})"
)

# What each flow says of each of its assets, and what of it is one: `nodes`.
_NODES = f"""
    decided AS MATERIALIZED (
        SELECT d.key, g.number, m.machine
        FROM identity_decisions d,
             jsonb_array_elements(d.machines) WITH ORDINALITY AS g(machines, number),
             jsonb_array_elements_text(g.machines) AS m(machine)
        WHERE d.tenant_id = :tenant AND d.engagement = :engagement
    ), own AS (
        SELECT DISTINCT r.keys, r.asset_type, a.flow_id,
               CASE WHEN r.identity LIKE 'row:%' THEN r.identity || ':' || a.flow_id
                    ELSE r.identity END AS own_identity
        FROM records r JOIN accepted a ON a.run_id = r.run_id
        WHERE r.tenant_id = :tenant AND r.keys <> '[]'::jsonb
          AND ((SELECT count(*) > 1 FROM accepted)
               OR EXISTS (SELECT FROM decided))
    ), said AS MATERIALIZED (
        SELECT DISTINCT own_identity, flow_id, k.key, split_part(k.key, ':', 1) AS kind,
               substr(k.key, strpos(k.key, ':') + 1) AS value
        FROM own, jsonb_array_elements_text(own.keys) AS k(key)
    ), described AS MATERIALIZED (
        SELECT own_identity, flow_id, min(value) FILTER (WHERE kind = 'name') AS name,
               min(value) FILTER (WHERE kind = 'vm') AS vm,
               min(split_part(value, '/', 1)) FILTER (WHERE kind = 'vm') AS vcenters,
               min(split_part(value, '/', 2)) FILTER (WHERE kind = 'vm') AS vm_ids
        FROM said GROUP BY own_identity, flow_id
    ), contested AS (
        SELECT own_identity FROM described GROUP BY own_identity
        HAVING count(DISTINCT name) > 1 OR ({_OTHER_VM})
    ), several_vms AS (
        SELECT own_identity, name FROM described GROUP BY own_identity, name HAVING {_OTHER_VM}
    ), nodes AS MATERIALIZED (
        SELECT d.own_identity, d.flow_id, d.name, CASE WHEN c.own_identity IS NULL
                   THEN d.own_identity ELSE concat_ws(' ', d.own_identity,
                       CASE WHEN length(l.called) > 60 THEN left(l.called, 28) || md5(l.called)
                            ELSE nullif(l.called, '') END) END AS node
        FROM described d LEFT JOIN contested c USING (own_identity)
             LEFT JOIN several_vms v ON v.own_identity = d.own_identity
                  AND v.name IS NOT DISTINCT FROM d.name
             CROSS JOIN LATERAL (SELECT concat_ws(' ', d.name,
                 CASE WHEN v.own_identity IS NOT NULL THEN d.vm END) AS called) AS l
    ), judged AS MATERIALIZED (
        SELECT d.key, n.node, min(d.number) AS number
        FROM decided d JOIN said k ON k.key = d.key
             JOIN nodes n ON n.own_identity = k.own_identity AND n.flow_id = k.flow_id
        WHERE d.machine IN (n.name, n.node)
        GROUP BY d.key, n.node
    ), same AS (
        SELECT node AS a, min(node) OVER (PARTITION BY key, number) AS b FROM judged
    ), same_ways AS MATERIALIZED (
        SELECT a, b FROM same WHERE a <> b UNION SELECT b, a FROM same WHERE a <> b
    ), same_reached(node, other) AS (
        SELECT a, a FROM same_ways
        UNION SELECT r.node, e.b FROM same_reached r JOIN same_ways e ON e.a = r.other
    ), by_hand AS (
        SELECT node, min(other) AS identity FROM same_reached GROUP BY node
    ), meant AS MATERIALIZED (
        SELECT n.*, coalesce(h.identity, n.node) AS identity, h.identity IS NOT NULL AS by_hand
        FROM nodes n LEFT JOIN by_hand h USING (node)
    )
"""  # noqa: S608 - texts of ours

# Which of them are joined by which key: `edges`.
_EDGES = f"""
    known_by AS MATERIALIZED (
        SELECT DISTINCT m.identity, k.flow_id, k.key, k.kind, k.value
        FROM said k JOIN meant m USING (own_identity, flow_id)
    ), facts AS MATERIALIZED (
        SELECT identity, array_agg(DISTINCT key) FILTER (WHERE kind = 'serial_number') AS serials,
               array_agg(DISTINCT key) FILTER (WHERE kind = 'fqdn') AS fqdns,
               array_agg(DISTINCT value) FILTER (WHERE kind = 'name') AS names,
               array_agg(DISTINCT split_part(value, '/', 1)) FILTER (WHERE kind = 'vm') AS vcenters,
               array_agg(DISTINCT split_part(value, '/', 2)) FILTER (WHERE kind = 'vm') AS vm_ids
        FROM known_by GROUP BY identity
    ), types AS (
        SELECT m.identity, max(o.asset_type) FILTER (WHERE o.asset_type <> 'unknown') AS asset_type
        FROM own o JOIN meant m USING (own_identity, flow_id) GROUP BY m.identity
    ), described_by AS MATERIALIZED (
        SELECT * FROM facts JOIN types USING (identity)
    ), counted AS MATERIALIZED (
        SELECT k.identity, k.key, k.kind, strength.n, d.serials, d.fqdns, d.names, d.vcenters,
               d.vm_ids, d.asset_type, count(*) OVER (PARTITION BY k.key, k.flow_id) AS in_flow
        FROM known_by k JOIN (VALUES {_STRENGTH}) AS strength(kind, n) USING (kind)
             JOIN described_by d USING (identity)
    ), shared AS (
        SELECT key, '' AS label, n, min(identity) AS hub FROM counted
        GROUP BY key, kind, n
        HAVING count(DISTINCT identity) > 1 AND max(in_flow) = 1 AND {_COMPATIBLE}
           AND (kind NOT IN ('serial_number', 'asset_id') OR count(DISTINCT names) <= 1)
           AND (kind IN ('serial_number', 'asset_id', 'fqdn') OR count(DISTINCT fqdns) <= 1)
           -- an address alone says nothing of assets that have a better key
           AND (kind <> 'ip_address'
                OR count(DISTINCT identity) FILTER (WHERE identity NOT LIKE 'ip_address:%') <= 1)
    ), unclear AS (
        SELECT key FROM counted WHERE kind IN ('serial_number', 'asset_id') GROUP BY key
        HAVING count(DISTINCT identity) > 1 AND (max(in_flow) > 1 OR count(DISTINCT names) > 1)
    ), labelled AS (
        SELECT DISTINCT k.key, l.label, k.identity, k.flow_id
        FROM known_by k JOIN unclear USING (key) JOIN (
            SELECT DISTINCT identity,
                   CASE kind WHEN 'also' THEN 'name' ELSE kind END || ':' || value AS label
            FROM known_by WHERE kind IN ('name', 'also', 'fqdn', 'address', 'vm')
        ) AS l ON l.identity = k.identity
    ), agreed AS (
        SELECT l.key, l.label, c.n, min(l.identity) AS hub
        FROM (SELECT *, count(*) OVER (PARTITION BY key, label, flow_id) AS same_flow
              FROM labelled) AS l JOIN described_by d USING (identity)
             JOIN (SELECT DISTINCT key, n FROM counted) AS c USING (key)
        GROUP BY l.key, l.label, c.n
        HAVING count(DISTINCT l.identity) > 1 AND max(same_flow) = 1 AND {_COMPATIBLE}
    ), edges AS MATERIALIZED (
        SELECT a, b, min(n) AS n FROM (
            SELECT k.identity AS a, s.hub AS b, s.n FROM shared s JOIN known_by k USING (key)
            UNION ALL
            SELECT l.identity, s.hub, s.n FROM agreed s JOIN labelled l USING (key, label)
        ) AS found WHERE a <> b GROUP BY a, b
    )
"""  # noqa: S608 - texts of ours

# Expects `accepted` (run_id, flow_id). Fills `asset_aliases`: which asset an identity that a flow
# gave belongs to, and the strength of the key that says so. An identity that is several assets' is
# followed by the flow's id.
FIND_ALIASES = f"""
    {_NODES}, {_EDGES}, both_ways AS MATERIALIZED (
        SELECT a, b, n FROM edges UNION SELECT b, a, n FROM edges
    ), reached(identity, other) AS (
        SELECT a, a FROM both_ways
        UNION SELECT r.identity, e.b FROM reached r JOIN both_ways e ON e.a = r.other
    ), parted AS (
        SELECT r.identity
        FROM reached r JOIN meant m ON m.identity = r.other
             JOIN judged j ON j.node = m.node
        GROUP BY r.identity, j.key HAVING count(DISTINCT j.number) > 1
    ), groups AS (
        -- a chain of keys must not bring together what a single key would have kept apart
        SELECT r.identity, min(r.other) AS component
        FROM reached r JOIN described_by d ON d.identity = r.other
             JOIN (SELECT DISTINCT identity, flow_id FROM known_by) f ON f.identity = r.other
        GROUP BY r.identity
        HAVING count(*) = count(DISTINCT f.flow_id) AND count(DISTINCT d.serials) <= 1
           AND NOT ({_OTHER_VM}) AND r.identity NOT IN (SELECT p.identity FROM parted p)
    ), strongest AS (
        SELECT a AS identity, min(n) AS n FROM both_ways GROUP BY a
    ), placed AS MATERIALIZED (
        SELECT m.own_identity, m.flow_id, m.node, coalesce(g.component, m.identity) AS component,
               CASE WHEN m.by_hand THEN {BY_HAND} WHEN g.component IS NULL THEN {ALONE}
                    ELSE s.n END AS strength
        FROM meant m LEFT JOIN groups g USING (identity) LEFT JOIN strongest s USING (identity)
    ), clear AS (
        SELECT own_identity FROM placed GROUP BY own_identity
        HAVING count(DISTINCT component) = 1
    ), texts AS MATERIALIZED (
        SELECT p.*, c.own_identity IS NOT NULL AS is_clear,
               coalesce(c.own_identity, p.node) AS called
        FROM placed p LEFT JOIN clear c USING (own_identity)
    ), named AS (
        SELECT component, coalesce(
                   min(called) FILTER (WHERE called LIKE 'serial_number:%'),
                   min(called) FILTER (WHERE called LIKE 'fqdn:%'),
                   min(called) FILTER (WHERE called LIKE 'hostname:%'),
                   min(called) FILTER (WHERE called LIKE 'asset_id:%'),
                   min(called)) AS asset
        FROM texts GROUP BY component
    ), found AS (
        SELECT CASE WHEN is_clear THEN own_identity ELSE own_identity || ':' || flow_id END
                   AS identity, component, strength FROM texts
        UNION ALL SELECT node, component, strength FROM texts WHERE node <> own_identity
    )
    INSERT INTO asset_aliases (tenant_id, engagement, identity, asset, strength)
    SELECT :tenant, :engagement, f.identity, min(n.asset), min(f.strength)
    FROM found f JOIN named n USING (component)
    WHERE f.strength <> {ALONE} OR f.identity <> n.asset
    GROUP BY f.identity
"""  # noqa: S608 - texts of ours
# Expects `accepted` and filled aliases: every accepted row with its asset; the last rank counts.
SOURCE_ROWS = """
    own_rows AS (
        SELECT a.flow_id, a.flow, a.finished_at, r.*,
               -- a row that nothing tells apart is nobody else's row of that number
               CASE WHEN r.identity LIKE 'row:%' THEN r.identity || ':' || a.flow_id
                    ELSE r.identity END AS own_identity,
               row_number() OVER (ORDER BY a.position DESC NULLS FIRST, a.created_at, a.flow,
                                  a.run_id, r.row) AS rank
        FROM records r JOIN accepted a ON a.run_id = r.run_id
        WHERE r.tenant_id = :tenant
    ), joined AS (
        SELECT identity, asset, strength FROM asset_aliases
        WHERE tenant_id = :tenant AND engagement = :engagement
    ), source_rows AS (
        SELECT coalesce(f.asset, j.asset, o.own_identity) AS asset,
               coalesce(f.strength, j.strength) AS joined_by, o.*
        FROM own_rows o LEFT JOIN joined j ON j.identity = o.own_identity
             LEFT JOIN joined f ON f.identity = o.own_identity || ':' || o.flow_id
    )
"""
JOIN_CONFIDENCE = f"CASE min(joined_by) WHEN {BY_HAND} THEN 1 {_CONFIDENCE} END"
JOIN_REASON = (
    f"CASE min(joined_by) WHEN {BY_HAND} THEN 'machine, as a person decided,' "
    + " ".join(f"WHEN {n} THEN '{kind}'" for n, kind in enumerate(KEY_CONFIDENCE))
    + " END"
)
