SELECT
    (SELECT count() FROM traces FINAL WHERE ({tenant:String} = '' OR tenant = {tenant:String})) AS traces,
    count() AS spans,
    countIf(status = 'error') AS errors,
    toUInt64(sumIf(ifNull(input_tokens, 0), usage_scope = 'own')) AS input_tokens,
    toUInt64(sumIf(ifNull(output_tokens, 0), usage_scope = 'own')) AS output_tokens,
    sumIf(ifNull(cost_usd, 0), usage_scope = 'own') AS cost_usd,
    replaceOne(toString(max(received_at)), ' ', 'T') || 'Z' AS newest_received_at
FROM spans FINAL
WHERE ({tenant:String} = '' OR tenant = {tenant:String})
