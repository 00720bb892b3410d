-- How much there is of a day, by minute, to cut it into pages; without FINAL, so a little more than comes out.
SELECT toString({minute}) AS minute, toString(count()) AS rows, toString(sum({bytes})) AS bytes
FROM {table}
WHERE day = {day} AND {chosen}
GROUP BY {minute}
ORDER BY {minute}
