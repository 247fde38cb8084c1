"""Which rows of several sources are one asset: SQL over what the sources know them by.

Each flow has already merged its own rows. Between flows a shared key joins two assets where it is
clear: no flow knows two assets by it, and neither a serial number nor, for weaker keys, a full
domain name speaks against it. What is not clear stays apart, since two assets can be merged later
and one that was mixed up cannot be parted. The answer depends on the accepted rows alone, so two
flows that end in either order give the same inventory.
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

# Expects `accepted` (run_id, flow_id). Fills `asset_aliases`: which asset an identity that a flow
# gave belongs to, and the strength of the key that says so.
FIND_ALIASES = f"""
    own AS (
        SELECT DISTINCT r.identity, a.flow_id, r.keys, r.asset_type
        FROM records r JOIN accepted a ON a.run_id = r.run_id
        WHERE r.tenant_id = :tenant AND r.keys <> '[]'::jsonb
          AND (SELECT count(*) > 1 FROM accepted)
    ), known_by AS MATERIALIZED (
        SELECT DISTINCT identity, flow_id, k.key, split_part(k.key, ':', 1) AS kind
        FROM own, jsonb_array_elements_text(own.keys) AS k(key)
    ), facts AS MATERIALIZED (
        SELECT identity, array_agg(DISTINCT key) FILTER (WHERE kind = 'serial_number') AS serials,
               array_agg(DISTINCT key) FILTER (WHERE kind = 'fqdn') AS fqdns
        FROM known_by GROUP BY identity
    ), types AS (
        SELECT identity, max(asset_type) FILTER (WHERE asset_type <> 'unknown') AS asset_type
        FROM own GROUP BY identity
    ), counted AS (
        SELECT k.*, f.serials, f.fqdns, t.asset_type,
               count(*) OVER (PARTITION BY k.key, k.flow_id) AS in_flow
        FROM known_by k JOIN facts f USING (identity) JOIN types t USING (identity)
    ), shared AS (
        SELECT key, strength.n, min(identity) AS hub
        FROM counted JOIN (VALUES {_STRENGTH}) AS strength(kind, n) USING (kind)
        GROUP BY key, kind, strength.n
        HAVING count(DISTINCT identity) > 1 AND max(in_flow) = 1
           AND count(DISTINCT serials) <= 1 AND count(DISTINCT asset_type) <= 1
           AND (kind IN ('serial_number', 'asset_id', 'fqdn') OR count(DISTINCT fqdns) <= 1)
           -- an address alone says nothing of assets that have a better key
           AND (kind <> 'ip_address'
                OR count(DISTINCT identity) FILTER (WHERE identity NOT LIKE 'ip_address:%') <= 1)
    ), edges AS MATERIALIZED (
        SELECT k.identity AS a, s.hub AS b, min(s.n) AS n
        FROM shared s JOIN known_by k USING (key)
        WHERE k.identity <> s.hub GROUP BY 1, 2
    ), both_ways AS MATERIALIZED (
        SELECT a, b, n FROM edges UNION SELECT b, a, n FROM edges
    ), reached(identity, other) AS (
        SELECT a, a FROM both_ways
        UNION SELECT r.identity, e.b FROM reached r JOIN both_ways e ON e.a = r.other
    ), groups AS (
        -- a chain of keys must not bring together what a single key would have kept apart
        SELECT r.identity, min(r.other) FILTER (WHERE r.other LIKE 'serial_number:%') AS serial,
               min(r.other) FILTER (WHERE r.other LIKE 'fqdn:%') AS fqdn,
               min(r.other) FILTER (WHERE r.other LIKE 'hostname:%') AS hostname,
               min(r.other) FILTER (WHERE r.other LIKE 'asset_id:%') AS asset_id,
               min(r.other) AS any_key
        FROM reached r JOIN facts s ON s.identity = r.other
             JOIN (SELECT DISTINCT identity, flow_id FROM known_by) f ON f.identity = r.other
        GROUP BY r.identity
        HAVING count(*) = count(DISTINCT f.flow_id) AND count(DISTINCT s.serials) <= 1
    ), strongest AS (
        SELECT a AS identity, min(n) AS n FROM both_ways GROUP BY a
    )
    INSERT INTO asset_aliases (tenant_id, engagement, identity, asset, strength)
    SELECT :tenant, :engagement, g.identity, coalesce(serial, fqdn, hostname, asset_id, any_key),
           s.n
    FROM groups g JOIN strongest s USING (identity)
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
        SELECT coalesce(j.asset, o.own_identity) AS asset, j.strength AS joined_by, o.*
        FROM own_rows o LEFT JOIN joined j ON j.identity = o.own_identity
    )
"""
JOIN_CONFIDENCE = f"CASE min(joined_by) {_CONFIDENCE} END"
JOIN_REASON = (
    "CASE min(joined_by) "
    + " ".join(f"WHEN {n} THEN '{kind}'" for n, kind in enumerate(KEY_CONFIDENCE))
    + " END"
)
