-- When each day was last counted: a day that was not counted again has the sums it had.
SELECT intDiv(toUnixTimestamp(minute), 86400) AS number, max(version) AS version
FROM rollup_1m
WHERE minute >= toDateTime({since:Int64} * 86400, 'UTC') AND minute < toDateTime(({until:Int64} + 1) * 86400, 'UTC')
GROUP BY number
