-- Findings of some traces, as they were last written; withdrawn ones are gone.
SELECT {columns}
FROM findings FINAL
WHERE tenant IN ({tenants:Array(String)}) AND trace_id IN ({traces:Array(String)})
