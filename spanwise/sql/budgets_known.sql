-- Findings about budgets that are in force.
SELECT finding_id, toUnixTimestamp64Milli(detected_at) AS detected_ms
FROM findings FINAL
WHERE signature = 'budget' AND started_at >= toDateTime({since:Int64}, 'UTC')
