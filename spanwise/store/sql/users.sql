-- Roles and users of a ClickHouse server that keeps Spanwise's tables. Run them as an administrator.
-- Each user logs in with a client certificate of its name; for a password instead:
--   ALTER USER spanwise_writer{on_cluster} IDENTIFIED WITH sha256_password BY '...';

-- The owner creates and changes tables: `spanwise migrate`.
CREATE ROLE IF NOT EXISTS spanwise_owner{on_cluster};
GRANT{on_cluster} SHOW, SELECT, INSERT, ALTER, OPTIMIZE, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW ON {database}.* TO spanwise_owner;
{owner_on_cluster}CREATE USER IF NOT EXISTS spanwise_owner{on_cluster} IDENTIFIED WITH ssl_certificate CN 'spanwise_owner' DEFAULT ROLE spanwise_owner;
GRANT{on_cluster} spanwise_owner TO spanwise_owner;

-- The writer is what `spanwise up` and `work` need with `store.migrate: false`.
CREATE ROLE IF NOT EXISTS spanwise_writer{on_cluster};
GRANT{on_cluster} SELECT, INSERT ON {database}.* TO spanwise_writer;
CREATE USER IF NOT EXISTS spanwise_writer{on_cluster} IDENTIFIED WITH ssl_certificate CN 'spanwise_writer' DEFAULT ROLE spanwise_writer;
GRANT{on_cluster} spanwise_writer TO spanwise_writer;

-- The reader is for dashboards and people who may see every tenant. It cannot write, nor raise its limits, nor name
-- a file or an address: that takes grants it does not have.
CREATE SETTINGS PROFILE IF NOT EXISTS spanwise_reader{on_cluster} SETTINGS readonly = 2, max_execution_time = 30 MIN 1 MAX 30, max_memory_usage = 1073741824 MIN 1 MAX 1073741824, max_result_rows = 1000000 MIN 1 MAX 1000000, max_threads = 2 MIN 1 MAX 2, max_concurrent_queries_for_user = 10 CONST{reads_on_cluster};
CREATE ROLE IF NOT EXISTS spanwise_reader{on_cluster} SETTINGS PROFILE spanwise_reader;
GRANT{on_cluster} SELECT ON {database}.* TO spanwise_reader;
CREATE QUOTA IF NOT EXISTS spanwise_reader{on_cluster} KEYED BY user_name FOR INTERVAL 1 minute MAX queries = 600, execution_time = 120, FOR INTERVAL 1 day MAX read_bytes = 10000000000000 TO spanwise_reader;
CREATE USER IF NOT EXISTS spanwise_reader{on_cluster} IDENTIFIED WITH ssl_certificate CN 'spanwise_reader' DEFAULT ROLE spanwise_reader;
GRANT{on_cluster} spanwise_reader TO spanwise_reader;
