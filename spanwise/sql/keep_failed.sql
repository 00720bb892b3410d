-- Copy what failed traces have in one day and class into the class that is kept longer, unless it is there already.
INSERT INTO {table} ({columns}, retention)
SELECT {columns}, {kept_as:String}
FROM {table} FINAL
WHERE day = {day:Date}
  AND retention = {retention:String}
  AND (tenant, trace_id) IN (
    SELECT tenant, trace_id
    FROM traces FINAL
    WHERE finding_severity IN ({severities:Array(String)})
      AND day <= {day:Date} + 1
      AND toUnixTimestamp64Nano(start_time) / 1e9 + duration_ns / 1e9 >= toUnixTimestamp(toDateTime({day:Date} - 1, 'UTC'))
  )
  AND ({identity}) NOT IN (
    SELECT {identity}
    FROM {table}
    WHERE day = {day:Date} AND retention = {kept_as:String}
  )
