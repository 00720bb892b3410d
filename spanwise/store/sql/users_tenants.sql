-- Readers that see one tenant. The role of a tenant comes with a row policy; the common role alone sees no row.
{warning}CREATE ROLE IF NOT EXISTS spanwise_tenant{on_cluster} SETTINGS PROFILE spanwise_reader;
GRANT{on_cluster} {selects} TO spanwise_tenant;
CREATE QUOTA IF NOT EXISTS spanwise_tenant{on_cluster} KEYED BY user_name FOR INTERVAL 1 minute MAX queries = 120, execution_time = 60, FOR INTERVAL 1 day MAX read_bytes = 1000000000000 TO spanwise_tenant;
CREATE ROW POLICY IF NOT EXISTS spanwise_everyone{on_cluster} ON {tables} USING 1 TO ALL EXCEPT spanwise_tenant;
CREATE ROW POLICY IF NOT EXISTS spanwise_nobody{on_cluster} ON {tables} USING 0 TO spanwise_tenant;
