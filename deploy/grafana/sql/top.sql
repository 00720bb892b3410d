SELECT time, if(place <= 10, label, 'other') AS shown, toFloat64(sum(amount)) AS Value
FROM
(
    SELECT time, label, amount, dense_rank() OVER (ORDER BY total DESC, label) AS place
    FROM
    (
        SELECT
            $__timeInterval(minute) AS time,
            if({dimension} = '', '(none)', toString({dimension})) AS label,
            sum(cost_usd) AS amount,
            sum(amount) OVER (PARTITION BY label) AS total
        FROM {source}
        WHERE {filter} AND cost_usd > 0
        GROUP BY time, label
    )
)
GROUP BY time, shown
ORDER BY time, shown
