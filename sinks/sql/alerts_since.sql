-- Since when a webhook is known, and whether it is at all.
SELECT count() > 0 AS rows, toInt64(toUnixTimestamp64Milli(min(received_at))) AS since_ms
FROM alert_deliveries
WHERE webhook = {webhook:String}
