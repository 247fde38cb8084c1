"""What a deleted flow leaves behind goes in steps, a flow says how long its data stays, 0 is at once.

`released_at` is when nothing of a deleted flow was left but its history: the leading operator looks
for deleted flows without it. Those that people deleted before this revision have none, so that their
rows leave the inventory as well; those that the retention has removed keep theirs (`retired_at`).

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ENDED = "'Succeeded', 'Failed', 'Rejected', 'Cancelled'"
SHORTEST_SECONDS = 3600


def upgrade() -> None:
    # each in a transaction of its own: others may hold the two tables' locks in either order
    with op.get_context().autocommit_block():
        for column in (
            sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
            sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        ):
            op.add_column("master_flows", column, if_not_exists=True)
        for column in (
            sa.Column("purging", sa.Boolean(), server_default=sa.text("false"), nullable=False),
            sa.Column("retention_seconds", sa.Double(), nullable=True),
        ):
            op.add_column("discovery_flows", column, if_not_exists=True)
        op.create_index(
            "ix_master_flows_unreleased",
            "master_flows",
            ["deleted_at"],
            postgresql_where=sa.text("deleted_at IS NOT NULL AND released_at IS NULL"),
            if_not_exists=True,
        )
        op.create_index(
            "ix_discovery_flows_own_retention",
            "discovery_flows",
            ["state_since"],
            postgresql_where=sa.text("purged_at IS NULL AND retention_seconds IS NOT NULL"),
            if_not_exists=True,
        )
    op.execute(KEEP_RETIRED)
    _functions(
        own="coalesce(f.retention_seconds, seconds)",
        absent="seconds",
        since="job.requested_at",
    )


def downgrade() -> None:
    floor = f"make_interval(secs => {SHORTEST_SECONDS})"
    _functions(
        own="seconds",
        absent=f"greatest(seconds, {SHORTEST_SECONDS})",
        since=f"job.requested_at - {floor}",
    )
    with op.get_context().autocommit_block():
        op.drop_index(
            "ix_discovery_flows_own_retention", table_name="discovery_flows", if_exists=True
        )
        op.drop_index("ix_master_flows_unreleased", table_name="master_flows", if_exists=True)
    op.drop_column("discovery_flows", "retention_seconds")
    op.drop_column("discovery_flows", "purging")
    op.drop_column("master_flows", "released_at")
    op.drop_column("master_flows", "retired_at")


# row-level security binds the owner, too: one tenant after the other
KEEP_RETIRED = """
DO $$
DECLARE of_tenant uuid;
BEGIN
    PERFORM set_config('discovery.asked', 'namespaces', true);
    FOR of_tenant IN SELECT t.id FROM tenants t LOOP
        PERFORM set_config('discovery.tenant_id', of_tenant::text, true);
        UPDATE master_flows m SET retired_at = m.deleted_at FROM purges p
        WHERE p.tenant_id = m.tenant_id AND p.flow_id = m.flow_id AND p.reason = 'Retention'
          AND p.outcome = 'Done' AND m.deleted_at IS NOT NULL;
    END LOOP;
    PERFORM set_config('discovery.tenant_id', '', true);
    PERFORM set_config('discovery.asked', '', true);
END $$
"""

# a null time makes the comparison null, so that a flow for which nothing is set stays for ever
RETIRE_FLOW = f"""
CREATE OR REPLACE FUNCTION retire_flow(
    of_tenant uuid, of_flow uuid, of_epoch bigint, seconds float8
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    before text := current_setting('discovery.tenant_id', true);
    made uuid;
BEGIN
    PERFORM enter_retention(of_tenant, of_epoch);
    INSERT INTO purges (tenant_id, flow_id, flow_name, reason, requested_by)
    SELECT f.tenant_id, f.flow_id, m.name, 'Retention', 'operator'
    FROM discovery_flows f
    JOIN master_flows m ON m.tenant_id = f.tenant_id AND m.flow_id = f.flow_id
    WHERE f.tenant_id = of_tenant AND f.flow_id = of_flow AND f.purged_at IS NULL
      AND f.state IN ({ENDED})
      AND f.state_since <= clock_timestamp() - make_interval(secs => <own>)
      AND f.state_since <= clock_timestamp() - make_interval(secs => {SHORTEST_SECONDS})
    ON CONFLICT DO NOTHING
    RETURNING id INTO made;
    PERFORM set_config('discovery.tenant_id', coalesce(before, ''), true);
    RETURN made;
END $$
"""

RETIRE_TENANT = f"""
CREATE OR REPLACE FUNCTION retire_tenant(of_tenant uuid, of_epoch bigint, seconds float8)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    before text := current_setting('discovery.tenant_id', true);
    made uuid;
BEGIN
    PERFORM enter_retention(of_tenant, of_epoch);
    INSERT INTO purges (tenant_id, reason, requested_by, summary)
    SELECT t.id, 'NamespaceDeleted', 'operator', jsonb_build_object(
               'namespace', t.namespace, 'goneSince', t.gone_since,
               'flows', (SELECT count(*) FROM master_flows m WHERE m.tenant_id = t.id))
    FROM tenants t
    WHERE t.id = of_tenant AND t.purged_at IS NULL
      AND t.gone_since <= clock_timestamp() - make_interval(secs => <absent>)
      AND NOT EXISTS (SELECT FROM discovery_flows f
                      WHERE f.tenant_id = t.id AND f.state NOT IN ({ENDED}))
      AND NOT EXISTS (SELECT FROM purges p WHERE p.tenant_id = t.id AND p.flow_id IS NULL
                      AND p.finished_at IS NULL)
    RETURNING id INTO made;
    PERFORM set_config('discovery.tenant_id', coalesce(before, ''), true);
    RETURN made;
END $$
"""

# as in 0008 but for `<since>`
TENANT_ORDER = """
WITH RECURSIVE mine AS (
    SELECT c.oid, c.relname FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'purges'
), depth (oid, level) AS (
    SELECT m.oid, 0 FROM mine m
    UNION ALL
    SELECT k.conrelid, d.level + 1 FROM depth d
    JOIN pg_constraint k ON k.contype = 'f' AND k.confrelid = d.oid AND k.conrelid <> d.oid
    JOIN mine m ON m.oid = k.conrelid
)
SELECT m.relname || ': true' FROM mine m JOIN depth d ON d.oid = m.oid
GROUP BY m.relname ORDER BY max(d.level) DESC, m.relname
"""

OF_FLOW = """
'records: run_id IN (SELECT r.id FROM phase_runs r WHERE r.tenant_id = $1 AND r.flow_id = $2 '
    'AND r.id IS DISTINCT FROM $3)',
'field_mappings: request_id IN (SELECT q.id FROM approval_requests q WHERE q.tenant_id = $1 '
    'AND q.flow_id = $2)',
'approval_requests: flow_id = $2',
'flow_artefacts: flow_id = $2',
'notifications: flow_id = $2',
'flow_events: flow_id = $2',
'phase_runs: flow_id = $2 AND id IS DISTINCT FROM $3'
"""

BATCH = f"""
CREATE OR REPLACE FUNCTION purge_batch(
    of_tenant uuid, of_purge uuid, of_epoch bigint, most bigint
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    before text := current_setting('discovery.tenant_id', true);
    job purges;
    problem_found text := '';
    done boolean := false;
    kept uuid;
BEGIN
    PERFORM enter_retention(of_tenant, of_epoch);
    SELECT * INTO job FROM purges p WHERE p.tenant_id = of_tenant AND p.id = of_purge FOR UPDATE;
    IF NOT FOUND OR job.finished_at IS NOT NULL THEN
        done := true;
    ELSIF job.flow_id IS NULL THEN
        PERFORM 1 FROM tenants t WHERE t.id = of_tenant AND t.gone_since <= <since>;
        IF NOT FOUND THEN
            problem_found := 'the namespace is there again';
        ELSE
            done := remove_rows(job, NULL, ARRAY({TENANT_ORDER}), most);
            IF done THEN
                UPDATE tenants t SET purged_at = clock_timestamp() WHERE t.id = of_tenant;
            END IF;
        END IF;
    ELSE
        problem_found := flow_to_purge(job);
        IF problem_found = '' THEN
            SELECT r.id INTO kept FROM phase_runs r
            WHERE r.tenant_id = of_tenant AND r.flow_id = job.flow_id
              AND r.phase = 'asset_inventory' AND r.state = 'Succeeded'
            ORDER BY r.round DESC LIMIT 1;
            IF job.removed = '{{}}'::jsonb THEN
                UPDATE purges p SET summary = flow_summary(job, kept)
                WHERE p.tenant_id = of_tenant AND p.id = of_purge;
            END IF;
            done := remove_rows(job, kept, ARRAY[{OF_FLOW}], most);
            IF done THEN
                UPDATE discovery_flows f
                SET purged_at = clock_timestamp(), updated_at = clock_timestamp(),
                    version = f.version + 1, source_digest = NULL, target_schema_digest = NULL,
                    message = 'the data of this flow was purged by ' || job.requested_by,
                    answer_note = '', round_info = '{{}}'::jsonb
                WHERE f.tenant_id = of_tenant AND f.flow_id = job.flow_id;
                PERFORM pg_notify('discovery_flows', job.flow_id::text);
            END IF;
        END IF;
    END IF;
    IF done OR problem_found <> '' THEN
        UPDATE purges p
        SET finished_at = clock_timestamp(), problem = problem_found,
            outcome = CASE problem_found WHEN '' THEN 'Done' ELSE 'Refused' END
        WHERE p.tenant_id = of_tenant AND p.id = of_purge AND p.finished_at IS NULL;
        done := true;
    END IF;
    PERFORM set_config('discovery.tenant_id', coalesce(before, ''), true);
    RETURN done;
END $$
"""


def _functions(**filled: str) -> None:
    for function in (RETIRE_FLOW, RETIRE_TENANT, BATCH):
        statement = function.replace(":", r"\:")
        for name, value in filled.items():
            statement = statement.replace(f"<{name}>", value)
        op.execute(sa.text(statement))
