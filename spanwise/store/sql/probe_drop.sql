DROP VIEW IF EXISTS {probe}_view;
DROP TABLE IF EXISTS {probe}_target;
DROP TABLE IF EXISTS {probe};
