-- What each budget's part of the traffic used in each hour of a day: cost in 10⁻⁹ USD, or tokens.
SELECT toUnixTimestamp(toStartOfHour(minute)) AS hour, {sums}
FROM rollup_1m FINAL
WHERE minute >= toDateTime({day:Int64} * 86400, 'UTC') AND minute < toDateTime(({day:Int64} + 1) * 86400, 'UTC')
GROUP BY hour
