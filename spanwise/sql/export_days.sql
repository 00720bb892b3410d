-- Days that a table has rows of, from what is kept about its parts.
SELECT day, count() AS rows
FROM {table}
WHERE day BETWEEN {first} AND {last}
GROUP BY day
ORDER BY day
