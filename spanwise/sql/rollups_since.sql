-- Minutes with spans received at a time or later, after those of the page before.
SELECT
    toString(tenant) AS tenant,
    toUnixTimestamp(toStartOfMinute(start_time)) AS at,
    toUnixTimestamp64Milli(min(received_at)) AS received
FROM spans
WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})
GROUP BY tenant, at
HAVING (toInt64(at), tenant) > ({at:Int64}, {tenant:String})
ORDER BY at, tenant
LIMIT {most:UInt64}
