-- Values that spans refer to, their own and those of their log records.
SELECT {columns}
FROM content
WHERE tenant IN ({tenants:Array(String)}) AND trace_id IN ({traces}) AND hash IN ({hashes})
LIMIT 1 BY tenant, trace_id, hash
