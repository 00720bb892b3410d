-- Whether any log record was ever kept, and any without a trace.
SELECT count() > 0 AS any, countIf(trace_id = '') > 0 AS without_trace FROM log_events
