-- Spans of some traces that meet the conditions of a rule, in order of start.
SELECT
    toString(tenant) AS tenant,
    trace_id,
    arraySlice(arraySort(groupArray((toUnixTimestamp64Nano(start_time), span_id, {summed}))), 1, {most:UInt32}) AS found,
    found.1 AS starts,
    found.2 AS spans,
    found.3 AS numbers
FROM spans FINAL
WHERE tenant IN ({tenants:Array(String)})
  AND trace_id IN ({traces:Array(String)})
  AND {where}
GROUP BY tenant, trace_id
