-- choose_tenants
SELECT DISTINCT tenant
FROM rollup
WHERE $__timeFilter(minute)
ORDER BY tenant

-- choose_services
SELECT DISTINCT {service} AS service_label
FROM rollup
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
ORDER BY service_label

-- choose_agents
SELECT DISTINCT {agent} AS agent_label
FROM rollup
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
    AND $__conditionalAll({service} IN (${service:singlequote}), $service)
ORDER BY agent_label = '(none)', agent_label

-- choose_models
SELECT DISTINCT {model} AS model_label
FROM rollup
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
    AND $__conditionalAll({service} IN (${service:singlequote}), $service)
    AND kind IN ('llm', 'embedding')
ORDER BY model_label = '(none)', model_label

-- choose_tools
SELECT DISTINCT tool_name
FROM rollup
WHERE $__timeFilter(minute)
    AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)
    AND $__conditionalAll({service} IN (${service:singlequote}), $service)
    AND kind = 'tool' AND tool_name != ''
ORDER BY tool_name
