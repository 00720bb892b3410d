-- What trace summaries read, a part of the traces at a time.
SELECT {columns}
FROM spans
WHERE cityHash64(trace_id) % {parts:UInt32} = {part:UInt32}
