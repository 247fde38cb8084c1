"""The queries behind `invariants`, one constant each; see there for how they are run.

Every query names its parameters; `problem` says what is wrong with a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery_core.store.schema import Base


@dataclass(frozen=True)
class Invariant:
    """One query. Several may share a name: together they are the invariant."""

    name: str
    title: str
    sql: str


_ENDINGS = """
SELECT flow_id, round, array_agg(to_state ORDER BY sequence) AS states,
       'a round ends more than once' AS problem
FROM flow_events
WHERE to_state = ANY(%(ended)s) AND coalesce(from_state, '') <> ALL(%(ended)s)
GROUP BY tenant_id, flow_id, round HAVING count(*) > 1
UNION ALL
SELECT flow_id, round, array[from_state, trigger, to_state],
       'an end is left without a new round'
FROM flow_events
WHERE from_state = ANY(%(ended)s) AND to_state <> from_state
  AND trigger NOT IN ('Rerun', 'Reopened')
"""

_STEPS = """
WITH steps AS (
    SELECT source, trigger, target
    FROM jsonb_to_recordset(%(steps)s) AS s(source text, trigger text, target text)
), chain AS (
    SELECT e.*, lag(to_state) OVER flow AS before, lag(round) OVER flow AS round_before,
           row_number() OVER flow AS position
    FROM flow_events e WINDOW flow AS (PARTITION BY tenant_id, flow_id ORDER BY sequence)
)
SELECT flow_id, sequence, trigger, from_state, to_state, problem FROM (
    SELECT c.*, CASE
        WHEN sequence <> position THEN 'the history has a gap'
        WHEN from_state IS DISTINCT FROM before THEN 'it does not start where the last one ended'
        WHEN round < round_before THEN 'the round goes back'
        WHEN trigger = ANY(%(occurrences)s) AND from_state <> to_state
            THEN 'what only happens has moved the flow'
        WHEN trigger <> ALL(%(occurrences)s)
             AND NOT (trigger = 'Deleted' AND from_state = to_state AND to_state = ANY(%(ended)s))
             AND NOT EXISTS (SELECT FROM steps s WHERE s.trigger = c.trigger
                             AND s.target = c.to_state
                             AND s.source IS NOT DISTINCT FROM c.from_state)
            THEN 'the state table has no such step'
        END AS problem
    FROM chain c) found
WHERE problem IS NOT NULL
UNION ALL
SELECT f.flow_id, f.event_sequence, NULL, f.state, e.to_state,
       'row and last history row differ' AS problem
FROM discovery_flows f LEFT JOIN LATERAL (
    SELECT sequence, to_state, round FROM flow_events e
    WHERE e.tenant_id = f.tenant_id AND e.flow_id = f.flow_id ORDER BY sequence DESC LIMIT 1
) e ON true
WHERE (e.sequence, e.to_state, e.round) IS DISTINCT FROM (f.event_sequence, f.state, f.round)
   OR f.version < f.event_sequence
"""

_ORDER = """
WITH starts AS (
    SELECT tenant_id, flow_id, sequence, round, phase, attempt,
           array_position(%(phases)s::text[], phase) AS place,
           max(array_position(%(phases)s::text[], phase)) OVER (
               PARTITION BY tenant_id, flow_id, round ORDER BY sequence) AS farthest
    FROM flow_events WHERE trigger = 'AttemptStarted'
)
SELECT flow_id, sequence, round, phase, attempt, 'the phase goes back within a round' AS problem
FROM starts WHERE place < farthest
UNION ALL
SELECT flow_id, sequence, round, phase, attempt, 'the phase before has no result' AS problem
FROM starts s
WHERE place > 1 AND (%(phases)s::text[])[place - 1] <> ALL(%(gated)s) AND NOT EXISTS (
    SELECT FROM flow_events e WHERE e.tenant_id = s.tenant_id AND e.flow_id = s.flow_id
      AND e.sequence < s.sequence AND e.trigger = 'PhaseSucceeded'
      AND e.phase = (%(phases)s::text[])[s.place - 1])
"""

_APPROVED_FIRST = """
WITH gate AS (
    SELECT tenant_id, flow_id, sequence, trigger, details ->> 'requestId' AS request_id
    FROM flow_events
    WHERE trigger IN ('ApprovalRequested', 'Reopened', 'AskedAgain', 'Approved', 'Rejected',
                      'ExpiredApproved', 'ExpiredRejected')
       OR trigger = 'Rerun' AND array_position(%(phases)s::text[], phase)
          <= array_position(%(phases)s::text[], (%(gated)s::text[])[1])
), starts AS (
    SELECT e.tenant_id, e.flow_id, e.sequence, e.phase, e.attempt, e.at, latest.trigger AS last,
           latest.request_id
    FROM flow_events e LEFT JOIN LATERAL (
        SELECT g.trigger, g.request_id FROM gate g
        WHERE g.tenant_id = e.tenant_id AND g.flow_id = e.flow_id AND g.sequence < e.sequence
        ORDER BY g.sequence DESC LIMIT 1) latest ON true
    WHERE e.trigger = 'AttemptStarted' AND array_position(%(phases)s::text[], e.phase)
          > array_position(%(phases)s::text[], (%(gated)s::text[])[1])
)
SELECT s.flow_id, s.sequence, s.phase, s.last, s.request_id,
       'the mappings are used without an approval' AS problem
FROM starts s LEFT JOIN approval_requests r
  ON r.tenant_id = s.tenant_id AND r.flow_id = s.flow_id AND r.id::text = s.request_id
WHERE s.last IS NULL OR s.last NOT IN ('Approved', 'ExpiredApproved')
   OR r.state IS DISTINCT FROM 'Approved' OR r.decided_at > s.at OR r.approved_digest IS NULL
UNION ALL
SELECT e.flow_id, e.sequence, e.phase, e.trigger, e.details ->> 'requestId',
       'the decision is about other bytes than what was asked' AS problem
FROM flow_events e JOIN approval_requests r
  ON r.tenant_id = e.tenant_id AND r.id::text = e.details ->> 'requestId'
WHERE e.details ? 'artefactDigest' AND e.details ->> 'artefactDigest' <> r.artefact_digest
UNION ALL
SELECT r.flow_id, NULL, NULL, r.state, r.id::text,
       'what is asked about is not among the artefacts' AS problem
FROM approval_requests r
WHERE r.state = 'Open' AND NOT EXISTS (
    SELECT FROM artefacts a WHERE a.tenant_id = r.tenant_id AND a.digest = r.artefact_digest
      AND a.sealed_at IS NOT NULL)
"""

_ONE_RESULT = """
SELECT flow_id, phase, count(*) AS runs, 'two results of a phase count' AS problem
FROM phase_runs WHERE state = 'Succeeded'
GROUP BY tenant_id, flow_id, phase HAVING count(*) > 1
UNION ALL
SELECT flow_id, phase, count(*), 'a phase was accepted twice in a round'
FROM flow_events WHERE trigger IN ('PhaseSucceeded', 'FlowSucceeded')
GROUP BY tenant_id, flow_id, round, phase HAVING count(*) > 1
UNION ALL
SELECT flow_id, max(phase), count(*), 'two attempts are live'
FROM phase_runs WHERE state = ANY(%(live)s)
GROUP BY tenant_id, flow_id HAVING count(*) > 1
UNION ALL
SELECT flow_id, max(phase), count(*), 'two attempts hold one fence'
FROM phase_runs WHERE fence IS NOT NULL
GROUP BY tenant_id, flow_id, fence HAVING count(*) > 1
UNION ALL
SELECT flow_id, max(phase), count(*), 'two attempts have one Job'
FROM phase_runs GROUP BY tenant_id, flow_id, job_name HAVING count(*) > 1
UNION ALL
SELECT r.flow_id, r.phase, 1, 'a fence that was never given out'
FROM phase_runs r JOIN discovery_flows f USING (tenant_id, flow_id) WHERE r.fence > f.last_fence
UNION ALL
SELECT flow_id, NULL, count(*), 'two requests are open'
FROM approval_requests WHERE state = 'Open'
GROUP BY tenant_id, flow_id HAVING count(*) > 1
"""

_ONE_MASTER = """
SELECT coalesce(m.flow_id, f.flow_id) AS flow_id, count(m.flow_id) AS masters,
       count(f.flow_id) AS rows, 'master flow and flow are not one to one' AS problem
FROM (SELECT * FROM master_flows WHERE kind = 'discovery') m
FULL JOIN discovery_flows f ON f.flow_id = m.flow_id AND f.tenant_id = m.tenant_id
GROUP BY 1 HAVING count(m.flow_id) <> 1 OR count(f.flow_id) <> 1
"""

_STATUS = """
WITH shown AS (
    SELECT * FROM jsonb_to_recordset(%(resources)s) AS r(flow_id uuid, name text,
        deleting boolean, unreadable boolean, row_version bigint, state text, phase text,
        round bigint, request_id text)
), rows AS (
    SELECT f.*, m.deleted_at, m.name, r.id::text AS request_id
    FROM discovery_flows f JOIN master_flows m USING (tenant_id, flow_id)
    LEFT JOIN approval_requests r ON r.tenant_id = f.tenant_id AND r.flow_id = f.flow_id
         AND r.state = 'Open' AND f.state = 'AwaitingApproval'
)
SELECT flow_id, name, shown_state, row_state, shown_version, row_version, problem FROM (
    SELECT coalesce(s.flow_id, f.flow_id) AS flow_id, coalesce(s.name, f.name) AS name,
           s.state AS shown_state, f.state AS row_state, s.row_version AS shown_version,
           f.version AS row_version, CASE
        WHEN f.deleted_at IS NOT NULL AND s.flow_id IS NOT NULL AND NOT s.deleting
            THEN 'the row says deleted, and the resource is there'
        WHEN f.deleted_at IS NOT NULL OR s.deleting THEN NULL
        WHEN s.row_version > f.version THEN 'the status is ahead of the row'
        WHEN s.row_version = f.version AND (s.state, s.phase, s.round, s.request_id)
             IS DISTINCT FROM (f.state, f.phase, f.round, f.request_id)
            THEN 'the status is not what the row of that version says'
        WHEN NOT %(settled)s THEN NULL
        WHEN f.flow_id IS NULL AND NOT s.unreadable THEN 'the resource has no row'
        WHEN f.flow_id IS NULL THEN NULL
        WHEN s.flow_id IS NULL AND f.state <> ALL(%(ended)s) THEN 'the resource is gone'
        WHEN s.flow_id IS NULL THEN NULL
        WHEN s.row_version IS DISTINCT FROM f.version THEN 'the status is behind the row'
        END AS problem
    FROM shown s FULL JOIN rows f ON f.flow_id = s.flow_id) compared
WHERE %(know_resources)s AND problem IS NOT NULL
"""

_NEVER_STUCK = """
WITH jobs AS (
    SELECT * FROM jsonb_to_recordset(%(jobs)s) AS j(
        name text, namespace text, uid text, flow_id uuid, live boolean)
), counts AS (
    SELECT tenant_id, count(*) AS mine, sum(count(*)) OVER () AS running
    FROM phase_runs WHERE state = ANY(%(live)s) GROUP BY tenant_id
), facts AS (
    SELECT f.*, clock_timestamp() AS now, make_interval(secs => %(grace)s) AS grace,
           r.id AS run_id, r.state AS run_state, r.deadline, r.heartbeat_at, r.finished_at,
           r.job_name, r.job_uid, q.id AS request_id, q.expires_at, q.policy,
           (SELECT count(*) FROM phase_runs l WHERE l.tenant_id = f.tenant_id
            AND l.flow_id = f.flow_id AND l.state = ANY(%(live)s)) AS live_runs,
           EXISTS (SELECT FROM jobs j WHERE j.uid = r.job_uid AND j.live) AS job_lives,
           coalesce((SELECT max(running) FROM counts), 0) AS running,
           coalesce((SELECT mine FROM counts c WHERE c.tenant_id = f.tenant_id), 0) AS mine
    FROM discovery_flows f JOIN master_flows m USING (tenant_id, flow_id)
    LEFT JOIN LATERAL (
        SELECT * FROM phase_runs r WHERE r.tenant_id = f.tenant_id AND r.flow_id = f.flow_id
          AND r.round = f.round AND r.phase = f.phase ORDER BY attempt DESC LIMIT 1) r ON true
    LEFT JOIN approval_requests q ON q.tenant_id = f.tenant_id AND q.flow_id = f.flow_id
         AND q.state = 'Open'
    WHERE m.deleted_at IS NULL AND f.state <> ALL(%(ended)s)
)
SELECT flow_id, state, phase, run_state, state_since, problem FROM (
    SELECT facts.*, CASE state
    WHEN 'Pending' THEN CASE
        WHEN state_since < now - grace THEN 'new, and nobody has looked at what it names' END
    WHEN 'Queued' THEN CASE
        WHEN live_runs > 0 THEN 'queued, and an attempt that is still live bars the next'
        WHEN not_before > now + grace
             + greatest((spec -> 'retries' ->> 'maxDelay')::interval, '75 minutes')
            THEN 'its timer is further away than any delay'
        WHEN greatest(state_since, not_before) < now - grace
             AND running < %(most)s AND mine < %(most_of_tenant)s
            THEN 'slots are free, and nobody starts it' END
    WHEN 'Running' THEN CASE
        WHEN run_id IS NULL THEN 'running without an attempt'
        WHEN run_state NOT IN ('Created', 'Launched', 'Running', 'Failed')
            THEN 'its attempt has ended and the flow has not moved'
        WHEN run_state = 'Failed' AND finished_at < now - grace
            THEN 'a reported failure that nobody deals with'
        WHEN run_state = 'Failed' THEN NULL
        WHEN deadline < now - grace THEN 'its deadline has passed'
        WHEN run_state = 'Running' AND heartbeat_at
             < now - grace - make_interval(secs => %(heartbeat)s) THEN 'its pod is silent'
        WHEN run_state <> 'Created' AND %(know_jobs)s AND %(settled)s AND NOT job_lives
            THEN 'its Job is not there' END
    WHEN 'Waiting' THEN CASE
        WHEN live_runs = 0 AND jsonb_array_length(missing) = 0 THEN 'waits for nothing' END
    WHEN 'AwaitingApproval' THEN CASE
        WHEN request_id IS NULL THEN 'waits for an answer, and nothing is asked'
        WHEN live_runs > 0 THEN 'asks, and an attempt is live'
        WHEN policy ->> 'onTimeout' = 'Approve' AND NOT %(automatic)s THEN NULL
        WHEN answer_note LIKE 'the answer is not taken yet:%%' THEN NULL
        WHEN expires_at < now - grace THEN 'its deadline has passed' END
    WHEN 'Suspended' THEN CASE
        WHEN live_runs > 0 THEN 'suspended, and an attempt is live'
        WHEN spec ->> 'state' IS DISTINCT FROM 'Suspend' AND updated_at < now - grace
            THEN 'suspended, and nobody wants that' END
    ELSE 'in a state of its own' END AS problem
    FROM facts) judged
WHERE problem IS NOT NULL
"""

_NO_STRAY_JOB = """
WITH jobs AS (
    SELECT * FROM jsonb_to_recordset(%(jobs)s) AS j(
        name text, namespace text, uid text, flow_id uuid, live boolean)
)
SELECT j.name, j.namespace, j.flow_id, f.state, r.state AS run_state, CASE
        WHEN f.flow_id IS NULL THEN 'a live Job of no flow'
        WHEN r.id IS NULL THEN 'a live Job of no attempt'
        ELSE 'a live Job of an attempt that has ended' END AS problem
FROM jobs j
LEFT JOIN discovery_flows f ON f.flow_id = j.flow_id
LEFT JOIN phase_runs r ON r.tenant_id = f.tenant_id AND r.flow_id = f.flow_id
     AND r.job_name = j.name AND coalesce(r.job_uid, j.uid) = j.uid
WHERE j.live AND (f.flow_id IS NULL OR r.id IS NULL OR r.state <> ALL(%(live)s)
    AND f.state_since < clock_timestamp() - make_interval(secs => %(stray)s + %(grace)s))
UNION ALL
SELECT min(j.name), min(j.namespace), j.flow_id, NULL, NULL,
       'a stopped flow has a live Job' AS problem
FROM jobs j JOIN discovery_flows f ON f.flow_id = j.flow_id
WHERE j.live AND %(settled)s AND f.state IN ('Suspended', 'Cancelled') GROUP BY j.flow_id
"""

_ATTRIBUTABLE = """
SELECT r.flow_id, r.id AS request_id, r.state, r.decided_by, problem FROM (
    SELECT r.*, CASE
        WHEN r.state = 'Open' THEN
            CASE WHEN decided_at IS NOT NULL OR decided_by IS NOT NULL THEN 'open and decided' END
        WHEN decided_at IS NULL THEN 'closed at no time'
        WHEN r.state = 'Cancelled' THEN NULL
        WHEN r.state <> 'Expired' AND coalesce(decided_by, '') = '' THEN 'decided by nobody'
        WHEN r.state IN ('Approved', 'Rejected', 'AskedAgain') AND coalesce(decided_via, '') = ''
            THEN 'it is not known through which door'
        WHEN r.state = 'Approved' AND decided_by = 'policy' AND policy ->> 'mode' <> 'AutoApprove'
             AND policy ->> 'onTimeout' <> 'Approve' THEN 'approved by a policy that asks a person'
        WHEN NOT EXISTS (
            SELECT FROM flow_events e
            WHERE e.tenant_id = r.tenant_id AND e.flow_id = r.flow_id
              AND CASE r.state
                  WHEN 'Refused' THEN e.trigger = 'AnswerRefused'
                       AND e.details ->> 'refusedRequestId' = r.id::text
                  WHEN 'Expired' THEN e.trigger = 'ExpiredRejected'
                       AND e.details ->> 'requestId' = r.id::text
                  ELSE e.trigger = ANY(CASE r.state
                           WHEN 'Approved' THEN array['Approved', 'ExpiredApproved']
                           ELSE array[r.state] END)
                       AND e.details ->> 'requestId' = r.id::text END
              AND (r.state = 'Expired' OR e.actor = r.decided_by))
            THEN 'the history does not say who decided'
        END AS problem
    FROM approval_requests r) r
WHERE problem IS NOT NULL
UNION ALL
SELECT e.flow_id, r.id, e.trigger, e.actor, 'the history has a decision that no request has'
FROM flow_events e LEFT JOIN approval_requests r
  ON r.tenant_id = e.tenant_id AND r.id::text = e.details ->> 'requestId'
WHERE (e.trigger IN ('Approved', 'ExpiredApproved') AND r.state IS DISTINCT FROM 'Approved')
   OR (e.trigger = 'Rejected' AND r.state IS DISTINCT FROM 'Rejected')
UNION ALL
SELECT flow_id, NULL, trigger, actor, 'a history row of nobody' FROM flow_events WHERE actor = ''
"""

# columns that point at another row, and where to; the column's name tells in every table
_POINTERS = {
    "flow_id": ("master_flows", "flow_id"),
    "run_id": ("phase_runs", "id"),
    "uploaded_by": ("phase_runs", "id"),
    "request_id": ("approval_requests", "id"),
    "artefact_id": ("artefacts", "id"),
}


def _foreign_pointers() -> str:
    """Rows whose pointer leads to another tenant, over all tables.

    It follows from the models, so that a new table is looked at without being listed here.
    """
    queries = [_FOREIGN_DIGEST]
    for table in Base.metadata.sorted_tables:
        if "tenant_id" not in table.columns:
            continue
        for column, (target, key) in _POINTERS.items():
            # a person's upload says who by name
            if column not in table.columns or table.name in (target, "uploads"):
                continue
            queries.append(
                f"SELECT '{table.name}.{column}' AS pointer, t.tenant_id, o.tenant_id AS other, "
                f"t.{column}::text AS value, 'it belongs to another tenant' AS problem "
                f"FROM {table.name} t JOIN {target} o ON o.{key} = t.{column} "
                "WHERE o.tenant_id <> t.tenant_id"
            )
    return " UNION ALL ".join(queries)


_FOREIGN_DIGEST = """
SELECT 'discovery_flows.source_digest' AS pointer, f.tenant_id, NULL::uuid AS other,
       f.source_digest AS value, 'the tenant has no such artefact' AS problem
FROM discovery_flows f
WHERE f.source_digest IS NOT NULL AND f.state <> ALL(%(ended)s) AND NOT EXISTS (
    SELECT FROM artefacts a WHERE a.tenant_id = f.tenant_id AND a.digest = f.source_digest)
"""

INVARIANTS = (
    Invariant("I1", "a round has one outcome, and only another round leaves it", _ENDINGS),
    Invariant("I2", "history and row follow the state table", _STEPS),
    Invariant("I2", "phases follow one another", _ORDER),
    Invariant("I3", "mappings are used only after a valid approval", _APPROVED_FIRST),
    Invariant("I4", "at most one result of a phase is accepted", _ONE_RESULT),
    Invariant("I5", "every flow has one master flow", _ONE_MASTER),
    Invariant("I6", "the resource's status is the row", _STATUS),
    Invariant(
        "I7",
        "an open flow owns a live Job, an armed timer, a queue slot, an approval deadline or a "
        "recorded wait for a person",
        _NEVER_STUCK,
    ),
    Invariant("I8", "no Job lives without a flow that wants it", _NO_STRAY_JOB),
    Invariant("I9", "no row points at another tenant's", _foreign_pointers()),
    Invariant("I10", "every decision is somebody's", _ATTRIBUTABLE),
)
