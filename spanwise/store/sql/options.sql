-- What of the options is in the tables themselves.
SELECT tables.name AS name, tables.engine_full AS engine, columns.default_expression AS class_of_tenant
FROM system.tables AS tables
INNER JOIN system.columns AS columns ON columns.database = tables.database AND columns.table = tables.name
WHERE tables.database = currentDatabase() AND tables.engine LIKE '%MergeTree' AND columns.name = 'retention'
