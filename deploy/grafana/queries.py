"""The SQL of the dashboards: files of named sections, and the few phrases that most of them repeat.

`{rollup}` and its like stand for the filters of the dashboard's variables, `{quantile(0.95)}` for reading a quantile
out of the rollup's buckets, `{top(...)}` for the cost of the largest values of a dimension. `FROM {usage}` is the
rollup, or the trace summaries once an agent is chosen: only they know whose work a span is that names no agent. What
begins with `$` is for Grafana and its ClickHouse data source to fill in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

SQL: Final = Path(__file__).with_name("sql")

SERVICE: Final = "if(service = '', '(none)', service)"
AGENT: Final = "if(agent_name = '', '(none)', agent_name)"
MODEL: Final = "if(model = '', '(none)', model)"


def _chosen(condition: str, variable: str) -> str:
    """The condition, unless "All" is chosen for the variable."""
    return f"$__conditionalAll({condition.replace('?', f'${{{variable}:singlequote}}')}, ${variable})"


_TENANT: Final = _chosen("tenant IN (?)", "tenant")
_SERVICE: Final = _chosen(f"{SERVICE} IN (?)", "service")
_AGENT: Final = _chosen(f"{AGENT} IN (?)", "agent")
_MODEL: Final = _chosen(f"{MODEL} IN (?)", "model")
_IN_TRACE: Final = (
    _chosen("hasAny(services, [?])", "service"),
    _chosen("hasAny(agents, [?])", "agent"),
    _chosen("hasAny(models, [?])", "model"),
)


def _all_of(*conditions: str) -> str:
    return "\n    AND ".join(conditions)


_IN_TIME: Final = "$__timeFilter(minute)"
# Traces that lasted for more than a week would be the first to be left out.
_IN_WORK: Final = _all_of(
    _IN_TIME, "start_time <= $__toTime", "start_time >= $__fromTime - toIntervalDay(7)", _TENANT, _SERVICE
)
_ONE_AGENT: Final = f"{AGENT} = ${{agent:singlequote}}"
_ONE_MODEL: Final = f"{MODEL} = ${{model:singlequote}}"
_ONE_TOOL: Final = "tool_name = ${tool:singlequote}"
_ONE_TRACE: Final = _all_of("trace_id = ${trace_id:singlequote}", _TENANT)

PHRASES: Final = {
    "service": SERVICE,
    "agent": AGENT,
    "model": MODEL,
    "rollup": _all_of(_IN_TIME, _TENANT, _SERVICE, _AGENT, _MODEL),
    "rollup_any_model": _all_of(_IN_TIME, _TENANT, _SERVICE, _AGENT),
    "work": _all_of(_IN_WORK, _AGENT, _MODEL),
    "work_any_model": _all_of(_IN_WORK, _AGENT),
    "work_of_agent": _all_of(_IN_WORK, _ONE_AGENT),
    "work_of_model": _all_of(_IN_WORK, "kind IN ('llm', 'embedding')", _ONE_MODEL),
    "work_of_tool": _all_of(_IN_WORK, "kind = 'tool'", _ONE_TOOL),
    "findings": _all_of(_IN_TIME, _TENANT, _SERVICE, _AGENT, _MODEL),
    "finding_rows": _all_of("$__timeFilter(started_at)", _TENANT, _SERVICE, _AGENT, _MODEL),
    "chosen_findings": "AND "
    + _all_of(_chosen("signature IN (?)", "signature"), _chosen("severity IN (?)", "severity")),
    "traces": _all_of("$__timeFilter(start_time)", _TENANT, *_IN_TRACE),
    "one_agent": _all_of(_IN_TIME, _TENANT, _SERVICE, _ONE_AGENT),
    "one_agent_finding_rows": _all_of("$__timeFilter(started_at)", _TENANT, _SERVICE, _ONE_AGENT),
    "one_agent_traces": _all_of(
        "$__timeFilter(start_time)", _TENANT, _IN_TRACE[0], "has(agents, ${agent:singlequote})"
    ),
    "one_model": _all_of(_IN_TIME, _TENANT, _SERVICE, "kind IN ('llm', 'embedding')", _ONE_MODEL),
    "one_tool": _all_of(_IN_TIME, _TENANT, _SERVICE, "kind = 'tool'", _ONE_TOOL),
    "one_tool_findings": _all_of(_IN_TIME, _TENANT, _SERVICE, _ONE_TOOL),
    "one_tool_finding_rows": _all_of("$__timeFilter(started_at)", _TENANT, _SERVICE, _ONE_TOOL),
    "one_trace": _ONE_TRACE,
    "usage": (SQL / "usage.sql").read_text(encoding="utf-8").strip(),
    # An interval in which nothing was measured is NULL, so that lines break there.
    "fill": "WITH FILL FROM toStartOfInterval($__fromTime, INTERVAL $__interval_s second) TO $__toTime "
    "STEP $__interval_s",
}

_BUCKETS: Final = {"quantile": "duration_buckets", "first_chunk": "first_chunk_buckets"}
_PHRASE: Final = re.compile(r"\{(\w+)(?:\(([^{}]*)\))?\}")


def _phrase(found: re.Match[str]) -> str:
    name, arguments = found[1], found[2]
    if arguments is None:
        return PHRASES[name]
    if name == "top":
        by_agent = arguments == "agent_name"
        text = (SQL / "top.sql").read_text(encoding="utf-8").strip().replace("{dimension}", arguments)
        text = text.replace("{source}", "rollup_agents" if by_agent else "{usage}")
        return text.replace("{filter}", "{work}" if by_agent else "{rollup}")
    buckets = _BUCKETS[name]
    # Bucket b ends at 1.02^b ns; its middle is at most 1 % off.
    return f"pow(1.02, quantileExactWeightedArray({arguments})(mapKeys({buckets}), mapValues({buckets})) - 0.5)"


def load(name: str) -> dict[str, str]:
    """The queries of `sql/<name>.sql` by name, phrases written out. Raises KeyError for an unknown phrase."""
    queries = {}
    file = (SQL / f"{name}.sql").read_text(encoding="utf-8")
    for section in re.split(r"^-- (?=\w+$)", file, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        text = text.strip()
        while _PHRASE.search(text):
            text = _PHRASE.sub(_phrase, text)
        queries[title] = text
    return queries
