-- Which of these minutes were counted from spans that may be deleted by now.
SELECT toString(tenant) AS tenant, toUnixTimestamp(minute) AS minute
FROM rollup_1m FINAL
WHERE (tenant, minute) IN (SELECT arrayJoin({due}))
GROUP BY tenant, minute
HAVING min(received_at) < fromUnixTimestamp64Milli({kept_since:Int64})
