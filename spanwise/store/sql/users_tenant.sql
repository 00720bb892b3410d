CREATE ROLE IF NOT EXISTS {role}{on_cluster};
GRANT{on_cluster} spanwise_tenant TO {role};
CREATE ROW POLICY IF NOT EXISTS {role}{on_cluster} ON {tables} USING tenant = {tenant} TO {role};
CREATE USER IF NOT EXISTS {role}{on_cluster} IDENTIFIED WITH ssl_certificate CN {name} DEFAULT ROLE {role}, spanwise_tenant;
GRANT{on_cluster} {role}, spanwise_tenant TO {role};
