-- Whose rows are chosen, as far as one more than one matters.
SELECT DISTINCT tenant FROM {table} WHERE {chosen} LIMIT 20
