"""Tags of assets in the form that each vendor takes, and what is told where that changes one.

A tag is brought into a vendor's form where nothing but its form is lost: Google's labels have no
capitals and no spaces. What would lose more is told (a sign that a label cannot have), or stays out
and is told (a value that is too long), never cut.
"""

from __future__ import annotations

import duckdb

from discovery_crews.tables.engine import literal

from .facts import Facts

_PAIR = r"^\s*([^=:]+?)\s*[=:]\s*(.*?)\s*$"
# AWS: Application Discovery Service user guide, import template; "Tag naming limits"
_AWS_KEY, _AWS_VALUE = 128, 256
# Google Cloud, "Requirements for labels": international letters count as lower-case ones
_LABEL, _LABELS = 63, 64
_KEY = r"[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}"
_FOREIGN = r"[^\p{Ll}\p{Lo}\p{N}_-]+"
_SHOWN = 60


def write_tags(connection: duckdb.DuckDBPyConnection, facts: Facts) -> None:
    """Make the tables `tags` and `tag_notes`, of the servers in the view `servers`.

    `tags`: identity, spot, aws (`Name:Value`, NULL where AWS cannot take it), label_key (NULL where
    Google cannot), label_value. `tag_notes`: vendor, identity, spot, note.
    """
    tags = facts.column("tags", "NULL::VARCHAR[]")
    connection.execute(
        f"""
        CREATE TEMP TABLE tags AS
        WITH each AS (
            SELECT a.identity, unnest({tags}) AS tag,
                generate_subscripts({tags}, 1) AS spot FROM servers AS a
        ), pairs AS (
            SELECT *, nullif(regexp_extract(tag, {literal(_PAIR)}, 1), '') AS key,
                regexp_extract(tag, {literal(_PAIR)}, 2) AS value FROM each
        ), folded AS (
            SELECT *, {_folded("key")} AS k, {_folded("value")} AS v FROM pairs
        ), ranked AS (
            SELECT *, first_value(key) OVER same AS first_key, first_value(v) OVER same AS first_v,
                row_number() OVER same AS place
            FROM folded WINDOW same AS (PARTITION BY identity, k ORDER BY spot)
        )
        SELECT identity, spot, tag, key, value, k, v, place, first_key, first_v,
            CASE WHEN {_taken_by_aws()} THEN key || ':' || value END AS aws,
            CASE WHEN {_taken_by_google()} AND place = 1 THEN k END AS label_key,
            v AS label_value
        FROM ranked
        """  # noqa: S608 - quoted
    )
    connection.execute(
        f"""
        CREATE TEMP TABLE tag_notes AS
        WITH said AS (SELECT *, 'tag "' || left(tag, {_SHOWN}) || '"' AS shown FROM tags)
        SELECT 'aws-import' AS vendor, identity, spot, shown || ' is not in the file: AWS takes '
            || 'Name:Value, without further commas and colons' AS note
        FROM said WHERE aws IS NULL
        UNION ALL SELECT 'google-import', identity, spot, shown || CASE
            WHEN key IS NULL THEN ' is not in the file: it is no key with a value'
            WHEN NOT ({_taken_by_google()}) THEN ' is not in the file: a label begins with a '
                || 'letter, and neither part is longer than {_LABEL}'
            WHEN label_key IS NULL THEN ' is not in the file: its key becomes the same label as "'
                || first_key || '"'
            ELSE ' is written as ' || k || '=' || v END
        FROM said WHERE (label_key IS NULL AND NOT coalesce(place > 1 AND v = first_v, false))
            OR (label_key IS NOT NULL AND ({_lost("key", "k")} OR {_lost("value", "v")}))
        UNION ALL SELECT 'google-import', identity, max(spot),
            'more than {_LABELS} labels; the first {_LABELS} are in the file'
        FROM tags WHERE label_key IS NOT NULL GROUP BY identity HAVING count(*) > {_LABELS}
        """  # noqa: S608 - quoted
    )


def tag_text() -> str:
    """SQL over servers `a`: the tags as AWS takes them; NULL for none."""
    return (
        "(SELECT string_agg(t.aws, ', ' ORDER BY t.spot) FROM tags AS t "
        "WHERE t.identity = a.identity)"
    )


def notes(vendor: str) -> str:
    """SQL over servers `a`: a list of what people are told about tags in that vendor's file."""
    return (
        "(SELECT list(t.note ORDER BY t.spot) FROM tag_notes AS t "  # noqa: S608 - a name of ours
        f"WHERE t.identity = a.identity AND t.vendor = {literal(vendor)})"
    )


def label_query(servers: str) -> str:
    """The query of Google's tagInfo, for the servers `a` of a FROM clause."""
    return (
        'SELECT t.identity AS "MachineId", t.label_key AS "Key", t.label_value AS "Value" '  # noqa: S608 - ours
        f"FROM (SELECT a.identity {servers}) AS s JOIN tags AS t USING (identity) "
        "WHERE t.label_key IS NOT NULL "
        f"QUALIFY row_number() OVER (PARTITION BY t.identity ORDER BY t.spot) <= {_LABELS} "
        "ORDER BY 1, 2"
    )


def _folded(text: str) -> str:
    """SQL: a text with the letters that a label may have; what else stands between becomes `_`."""
    return f"trim(regexp_replace(lower({text}), {literal(_FOREIGN)}, '_', 'g'), '_')"


def _lost(text: str, label: str) -> str:
    """SQL: whether a label lost more than capitals and spaces."""
    return f"regexp_replace(trim(lower({text})), '\\s+', '_', 'g') <> {label}"


def _taken_by_aws() -> str:
    return (
        "key IS NOT NULL AND value <> '' AND NOT regexp_matches(key || value, '[:,]') "
        f"AND length(key) <= {_AWS_KEY} AND length(value) <= {_AWS_VALUE}"
    )


def _taken_by_google() -> str:
    return f"regexp_full_match(coalesce(k, ''), {literal(_KEY)}) AND length(v) <= {_LABEL}"
