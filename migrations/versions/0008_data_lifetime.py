"""How long data stays: audited purges of flows and of deleted namespaces, and which code fits.

History is append-only for every application role, and stays so: what removes it are functions of
the owner, which check the leader's epoch, the age and the state themselves.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('discovery.tenant_id', true), '')::uuid"
CLUSTER = "nullif(current_setting('discovery.cluster_id', true), '')::uuid"
ENDED = "'Succeeded', 'Failed', 'Rejected', 'Cancelled'"
SHORTEST_SECONDS = 3600
APPLICATION_ROLES = "discovery_operator, discovery_execution, discovery_api"


def _time(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def _json(name: str) -> sa.Column:
    return sa.Column(
        name,
        postgresql.JSONB(astext_type=sa.Text()),
        server_default=sa.text("'{}'::jsonb"),
        nullable=False,
    )


def upgrade() -> None:
    op.add_column("discovery_flows", _time("purged_at", nullable=True))
    op.add_column("tenants", _time("gone_since", nullable=True))
    op.add_column("tenants", _time("purged_at", nullable=True))
    op.execute("GRANT UPDATE (gone_since) ON tenants TO discovery_operator")
    _purges()
    _functions()
    _leader_by_cluster()
    op.create_table(
        "schema_support",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("minimum_code_revision", sa.Text(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_schema_support_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_schema_support")),
    )
    op.execute("INSERT INTO schema_support (minimum_code_revision) VALUES ('0005')")
    op.execute(f"GRANT SELECT ON schema_support TO {APPLICATION_ROLES}")


def _purges() -> None:
    op.create_table(
        "purges",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("flow_id", sa.Uuid(), nullable=True),
        sa.Column("flow_name", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="Command", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        _time("requested_at", server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("inventory", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="Running", nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        _time("finished_at", nullable=True),
        _json("removed"),
        _json("summary"),
        sa.CheckConstraint(
            "reason IN ('Command', 'Retention', 'NamespaceDeleted')",
            name=op.f("ck_purges_reason"),
        ),
        sa.CheckConstraint(
            "outcome IN ('Running', 'Done', 'Refused')", name=op.f("ck_purges_outcome")
        ),
        sa.CheckConstraint(
            "(flow_id IS NULL) = (reason = 'NamespaceDeleted')", name=op.f("ck_purges_of_what")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_purges_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_purges")),
    )
    op.create_index(
        "uq_purges_unfinished",
        "purges",
        ["tenant_id", "flow_id"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute("ALTER TABLE purges ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE purges FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON purges USING (tenant_id = {TENANT})")
    op.execute(
        "CREATE POLICY cluster ON purges TO discovery_operator USING "
        f"(tenant_id IN (SELECT id FROM tenants WHERE cluster_id = {CLUSTER}))"
    )
    op.execute("GRANT SELECT ON purges TO discovery_operator, discovery_api")
    # a person's command; nobody may write what became of it, or in the name of the retention
    op.execute(
        "GRANT INSERT (tenant_id, id, flow_id, flow_name, requested_by, inventory) "
        "ON purges TO discovery_api"
    )


def _leader_by_cluster() -> None:
    op.execute("ALTER TABLE leader ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE leader FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY cluster ON leader TO discovery_operator USING (cluster_id = {CLUSTER})"
    )
    op.execute("CREATE POLICY upkeep ON leader TO discovery_owner USING (true)")


ENTER = """
CREATE FUNCTION enter_retention(of_tenant uuid, of_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    of_cluster uuid := nullif(current_setting('discovery.cluster_id', true), '')::uuid;
BEGIN
    PERFORM 1 FROM leader l WHERE l.cluster_id = of_cluster AND l.epoch = of_epoch FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'leader epoch % is over', of_epoch USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM set_config('discovery.tenant_id', of_tenant::text, true);
    PERFORM 1 FROM tenants t WHERE t.id = of_tenant AND t.cluster_id = of_cluster
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no tenant of this cluster', of_tenant
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$
"""

RETIRE_FLOW = f"""
CREATE FUNCTION retire_flow(of_tenant uuid, of_flow uuid, of_epoch bigint, seconds float8)
RETURNS uuid
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
      AND f.state_since <= clock_timestamp()
                           - make_interval(secs => greatest(seconds, {SHORTEST_SECONDS}))
    ON CONFLICT DO NOTHING
    RETURNING id INTO made;
    PERFORM set_config('discovery.tenant_id', coalesce(before, ''), true);
    RETURN made;
END $$
"""

RETIRE_TENANT = f"""
CREATE FUNCTION retire_tenant(of_tenant uuid, of_epoch bigint, seconds float8) RETURNS uuid
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
      AND t.gone_since <= clock_timestamp()
                          - make_interval(secs => greatest(seconds, {SHORTEST_SECONDS}))
      AND NOT EXISTS (SELECT FROM discovery_flows f
                      WHERE f.tenant_id = t.id AND f.state NOT IN ({ENDED}))
      AND NOT EXISTS (SELECT FROM purges p WHERE p.tenant_id = t.id AND p.flow_id IS NULL
                      AND p.finished_at IS NULL)
    RETURNING id INTO made;
    PERFORM set_config('discovery.tenant_id', coalesce(before, ''), true);
    RETURN made;
END $$
"""

# children before what they refer to, whichever tables there are; what is known of the history of
# purges stays
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

REMOVE = """
CREATE FUNCTION remove_rows(of_purge purges, of_run uuid, steps text[], most bigint)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    step text;
    named text;
    counts jsonb := of_purge.removed;
    allowed bigint;
    gone bigint;
    emptied boolean := true;
BEGIN
    FOREACH step IN ARRAY steps LOOP
        named := split_part(step, ': ', 1);
        allowed := CASE named WHEN 'artefact_chunks' THEN least(most, 100) ELSE most END;
        EXECUTE format(
            'DELETE FROM %1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$I '
            'WHERE tenant_id = $1 AND (%2$s) LIMIT $4))',
            named, substr(step, length(named) + 3)
        ) USING of_purge.tenant_id, of_purge.flow_id, of_run, allowed;
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone > 0 THEN
            counts := counts || jsonb_build_object(
                named, coalesce((counts ->> named)::bigint, 0) + gone);
        END IF;
        most := most - gone;
        IF gone = allowed OR most <= 0 THEN
            emptied := false;
            EXIT;
        END IF;
    END LOOP;
    UPDATE purges p SET removed = counts
    WHERE p.tenant_id = of_purge.tenant_id AND p.id = of_purge.id;
    RETURN emptied;
END $$
"""

BATCH = f"""
CREATE FUNCTION purge_batch(of_tenant uuid, of_purge uuid, of_epoch bigint, most bigint)
RETURNS boolean
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
        PERFORM 1 FROM tenants t WHERE t.id = of_tenant AND t.gone_since <= job.requested_at
                                         - make_interval(secs => {SHORTEST_SECONDS});
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

FLOW_TO_PURGE = f"""
CREATE FUNCTION flow_to_purge(job purges) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    flow discovery_flows;
BEGIN
    SELECT * INTO flow FROM discovery_flows f
    WHERE f.tenant_id = job.tenant_id AND f.flow_id = job.flow_id FOR UPDATE;
    RETURN CASE
        WHEN NOT FOUND THEN 'there is no such flow'
        WHEN flow.purged_at IS NOT NULL THEN 'the flow was purged already'
        WHEN flow.state NOT IN ({ENDED}) THEN 'the flow has not ended: it is ' || flow.state
        WHEN flow.state_since > job.requested_at THEN 'the flow has gone on since'
        ELSE '' END;
END $$
"""

# what an auditor asks later: how it ended, on which data, and who decided what
SUMMARY = """
CREATE FUNCTION flow_summary(job purges, kept uuid) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, public AS $$
    SELECT jsonb_build_object(
        'state', f.state, 'phase', f.phase, 'round', f.round, 'endedAt', f.state_since,
        'engagement', m.engagement, 'requestedBy', m.requested_by, 'createdAt', m.created_at,
        'sourceDigest', f.source_digest, 'events', f.event_sequence,
        'recordsKept', (SELECT count(*) FROM records r
                        WHERE r.tenant_id = f.tenant_id AND r.run_id = kept),
        'decisions', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'decision', q.state, 'by', q.decided_by, 'at', q.decided_at,
                'digest', q.artefact_digest, 'reason', q.reason) ORDER BY q.decided_at)
            FROM approval_requests q
            WHERE q.tenant_id = f.tenant_id AND q.flow_id = f.flow_id
              AND q.decided_at IS NOT NULL), '[]'::jsonb))
    FROM discovery_flows f
    JOIN master_flows m ON m.tenant_id = f.tenant_id AND m.flow_id = f.flow_id
    WHERE f.tenant_id = job.tenant_id AND f.flow_id = job.flow_id
$$
"""

INTERNAL = (
    "enter_retention(uuid, bigint)",
    "remove_rows(purges, uuid, text[], bigint)",
    "flow_to_purge(purges)",
    "flow_summary(purges, uuid)",
)
OPERATORS = (
    "retire_flow(uuid, uuid, bigint, float8)",
    "retire_tenant(uuid, bigint, float8)",
    "purge_batch(uuid, uuid, bigint, bigint)",
)


def _functions() -> None:
    for statement in (ENTER, RETIRE_FLOW, RETIRE_TENANT, FLOW_TO_PURGE, SUMMARY, REMOVE, BATCH):
        op.execute(sa.text(statement.replace(":", r"\:")))
    for signature in (*INTERNAL, *OPERATORS):
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    for signature in OPERATORS:
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO discovery_operator")


def downgrade() -> None:
    op.drop_table("schema_support")
    op.execute("DROP POLICY cluster ON leader")
    op.execute("DROP POLICY upkeep ON leader")
    op.execute("ALTER TABLE leader NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE leader DISABLE ROW LEVEL SECURITY")
    for signature in (*OPERATORS, *reversed(INTERNAL)):
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_table("purges")
    op.drop_column("tenants", "purged_at")
    op.drop_column("tenants", "gone_since")
    op.drop_column("discovery_flows", "purged_at")
