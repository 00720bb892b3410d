-- Count some minutes again, and write zeros for groups that were counted before and have vanished.
INSERT INTO rollup_1m ({columns})
SELECT {dimensions}, {sums}, min(counted.day) AS day, min(counted.received_at) AS received_at, {version:UInt64} AS version
FROM
(
    SELECT {dimensions}, {measures}, day, received_at
    FROM rollup_live
    WHERE (tenant, minute) IN (SELECT arrayJoin({due}))
    UNION ALL
    SELECT {dimensions}, {zeros}, day, received_at
    FROM rollup_1m FINAL
    WHERE (tenant, minute) IN (SELECT arrayJoin({due})) AND rollup_1m.spans > 0
) AS counted
GROUP BY {dimensions}
