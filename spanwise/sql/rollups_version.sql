-- A version for a count that has not begun, by the clock of the store: every process that counts has the same one.
SELECT greatest(toUInt64(toUnixTimestamp64Nano(now64(9))), max(version) + 1) AS version
FROM rollup_1m
WHERE (tenant, minute) IN (SELECT arrayJoin({due}))
