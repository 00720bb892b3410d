-- A page of a table as it is.
SELECT {columns}
FROM {table} FINAL
WHERE day = {day} AND {chosen} AND {page}
