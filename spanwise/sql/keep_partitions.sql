-- Parts of a table by day and class, from what is kept about parts: no row is read.
SELECT toInt32(toUInt16(day)) AS day, toString(retention) AS retention, count() AS rows
FROM {table}
GROUP BY day, retention
ORDER BY day, retention
