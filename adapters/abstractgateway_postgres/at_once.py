"""The statement that locks, checks and writes a batch, and is a transaction of its own.

It writes nothing where a run is not as it should be or a lease is over: whatever writes in it asks `verdict`. A row
that somebody else is changing is waited for, and checked as it is then.
"""

from __future__ import annotations

from functools import cache

from . import sql

LOOKS = {
    "held": "SELECT pg_advisory_xact_lock_shared(1095190599, bucket)::text FROM unnest(%b::int[]) AS wanted (bucket)",
    "given": f"""
        SELECT * FROM unnest({sql.STATE_ARRAYS}, %b::int8[], %b::int8[])
            AS given ({sql.STATE_NAMES}, was_revision, was_len)""",
    "locked": """
        SELECT run_id, revision, ledger_len, delta_count, slot FROM runs
        WHERE run_id = ANY(ARRAY(SELECT run_id FROM given)) ORDER BY run_id FOR NO KEY UPDATE""",
    "leases": "SELECT epoch FROM runners WHERE epoch = ANY(%b::int8[]) ORDER BY epoch FOR KEY SHARE",
}
"""What is locked and looked up, by name and in the order in which it is done."""

_CONDITIONS = {
    "held": "(SELECT COUNT(*) FROM held) >= 0",  # always so, once they are held
    "locked": """(SELECT COUNT(*) FROM given) = (
        SELECT COUNT(*) FROM locked JOIN given USING (run_id)
        WHERE locked.revision = given.was_revision AND locked.ledger_len = given.was_len)""",
    "leases": "(SELECT COUNT(*) FROM leases) = %s",
}

WRITES = {
    "changed": f"UPDATE runs {sql.SET_RUN} FROM given AS new, verdict WHERE verdict.holds AND runs.run_id = new.run_id",
    "cleared": """
        DELETE FROM run_deltas USING locked, given, verdict WHERE verdict.holds AND locked.delta_count > 0
            AND given.run_id = locked.run_id AND given.body IS NOT NULL AND run_deltas.run_id = locked.run_id""",
    "added": f"""
        INSERT INTO runs ({sql.STATE_NAMES}) SELECT {sql.STATE_NAMES}
        FROM unnest({sql.STATE_ARRAYS}) AS new ({sql.STATE_NAMES}), verdict WHERE verdict.holds""",
    "deltas": """
        INSERT INTO run_deltas (run_id, revision, delta) SELECT new.*
        FROM unnest(%b::text[], %b::int8[], %b::text[]) AS new, verdict WHERE verdict.holds""",
    "records": """
        INSERT INTO ledger (run_id, seq, record) SELECT new.*
        FROM unnest(%b::text[], %b::int8[], %b::text[]) AS new, verdict WHERE verdict.holds""",
    "outcomes": """
        UPDATE commands SET outcome = new.outcome, outcome_reason = new.reason, outcome_at = new.at
        FROM unnest(%b::int8[], %b::text[], %b::text[], %b::text[]) AS new (seq, outcome, reason, at), verdict
        WHERE verdict.holds AND commands.seq = new.seq""",
    "cursor": """
        UPDATE counters SET value = GREATEST(value, %s) FROM verdict WHERE verdict.holds AND name = 'command_cursor'""",
    "marked": f"INSERT INTO writers (writer_id, batch) SELECT %s, %s FROM verdict WHERE verdict.holds {sql.ON_MARK}",
}


@cache
def statement(looks: tuple[str, ...], writes: tuple[str, ...]) -> str:
    """Return the statement with these looks and writes; its values are theirs, with the number of leases in between.

    It answers whether everything was as it should be, the transaction, and the slots of the locked runs by their ids.
    """
    verdict = " AND ".join(_CONDITIONS[name] for name in looks if name in _CONDITIONS) or "true"
    parts = [f"{name} AS MATERIALIZED ({LOOKS[name]})" for name in looks]
    parts.append(f"verdict AS MATERIALIZED (SELECT {verdict} AS holds)")
    parts += [f"{name} AS ({WRITES[name]})" for name in writes]
    slots = "ARRAY(SELECT slot FROM locked)" if "locked" in looks else "NULL::int[]"
    return f"WITH {', '.join(parts)} SELECT holds, pg_current_xact_id()::text::int8, {slots} FROM verdict"
