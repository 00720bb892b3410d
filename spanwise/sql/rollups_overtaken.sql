-- Minutes with groups that the latest count of them did not have: whoever counted them wrote after that one had looked.
SELECT DISTINCT toString(tenant) AS tenant, toUnixTimestamp(minute) AS minute
FROM
(
    SELECT tenant, minute, spans, version, max(version) OVER (PARTITION BY tenant, minute) AS latest
    FROM rollup_1m FINAL
    WHERE (tenant, minute) IN (SELECT arrayJoin({due}))
)
WHERE spans > 0 AND version < latest
