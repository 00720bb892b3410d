-- Content of records without a trace, to be kept under the trace they were joined to.
SELECT {columns}
FROM content FINAL
WHERE tenant IN ({tenants:Array(String)}) AND trace_id = '' AND hash IN ({hashes})
